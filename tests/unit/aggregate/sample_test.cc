#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "aggregate/aggregate.h"
#include "aggregate/apportion.h"
#include "sampling.h"

namespace lockscope {
namespace {

using std::vector;

TEST(Apportion, AddsUpAndIsOffByLessThanOne) {
  EXPECT_EQ(apportion(10, {1, 1, 1}), (vector<uint64_t>{4, 3, 3}));
  EXPECT_EQ(apportion(7, {0, 2, 0, 5}), (vector<uint64_t>{0, 2, 0, 5}));
  EXPECT_EQ(apportion(0, {3, 1}), (vector<uint64_t>{0, 0}));
  EXPECT_EQ(apportion(1, {0.25, 0.75}), (vector<uint64_t>{0, 1}));
  const uint64_t year_ns = 31'557'600'000'000'000;
  vector<double> weights;
  for (int i = 1; i <= 1000; i++) weights.push_back(1.0 / i);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  const vector<uint64_t> shares = apportion(year_ns, weights);
  EXPECT_EQ(std::accumulate(shares.begin(), shares.end(), uint64_t{0}), year_ns);
  for (size_t i = 0; i < shares.size(); i++) {
    EXPECT_NEAR(static_cast<double>(shares[i]), year_ns * weights[i] / sum, 8);
  }
}

constexpr uint64_t kLock = 7;
constexpr uint64_t kProcess = 5ull << 32;

// One CPU on which waits of several stacks end, as sleeps.bpf.h enters them.
class Cpu {
 public:
  explicit Cpu(uint32_t rate, uint64_t seed) : rate_(rate) { cpu_.random = seed | 1; }

  // A wait of a stack, which began when the last one ended.
  void wait(uint64_t stack, uint64_t ns) {
    const ls_odds odds = cpu_.odds;  // as the wait begins
    cpu_.random = ls_next_random(cpu_.random);
    const uint32_t random = static_cast<uint32_t>(cpu_.random >> 32);
    now_ += ns;
    add(lock_.waits, ns);
    lock_.charged += ns >> LS_TICK_SHIFT;
    ls_count_event(&cpu_, rate_, ns, now_);
    events_++;
    if (!ls_is_sampled(ns, odds, random)) return;
    sampled_++;
    ls_wait_row& row = rows_[stack];
    add(row.sums, ns);
    row.weight_ns += ls_weight_of_wait(ns, odds);
  }

  void pass(uint64_t ns) { now_ += ns; }

  Capture capture() const {
    RawTables tables;
    tables.stop_ns = now_;
    ls_lock lock = lock_;
    lock.key.space = lock.process = kProcess;
    lock.book = (lock_.charged << LS_BOOK_COUNT_BITS);
    tables.locks.emplace_back(kLock, lock);
    for (const auto& [stack, row] : rows_) {
      ls_frames frames{};
      frames.n = 1;
      frames.ips[0] = stack;
      tables.stacks.push_back({{stack, kProcess}, frames});
      tables.waits.push_back({{kLock, stack}, row});
    }
    return aggregate(tables);
  }

  uint64_t now() const { return now_; }
  double sampled() const { return static_cast<double>(sampled_); }
  double events() const { return static_cast<double>(events_); }

 private:
  static void add(ls_wait_sums& sums, uint64_t ns) {
    sums.total_ns += ns;
    sums.sleeps++;
    sums.max_ns = std::max<uint64_t>(sums.max_ns, ns);
    sums.hist[std::bit_width(ns) - 1]++;
  }

  uint32_t rate_;
  ls_cpu cpu_{};
  ls_lock lock_{};
  uint64_t now_ = 1'000'000'000, events_ = 0, sampled_ = 0;
  std::map<uint64_t, ls_wait_row> rows_;
};

const WaitRow& row_of(const Capture& capture, uint64_t stack) {
  for (const WaitRow& row : capture.waits) {
    if (row.stack != kNone && capture.stacks[row.stack].addresses[0] == stack) return row;
  }
  ADD_FAILURE() << "no row of stack " << stack;
  static const WaitRow kNoRow;
  return kNoRow;
}

TEST(Sample, BelowTheRateEveryEventIsInIt) {
  Cpu cpu(2000, 1);
  for (int i = 0; i < 20000; i++) {
    cpu.wait(1 + i % 3, 16 * (1 + i % 1000));
    cpu.pass(600'000);  // 1,650 a second
  }
  EXPECT_EQ(cpu.sampled(), cpu.events());
}

TEST(Sample, ZeroTakesAllOfThem) {
  Cpu cpu(0, 1);
  for (int i = 0; i < 100'000; i++) cpu.wait(1, 1600);
  EXPECT_EQ(cpu.sampled(), cpu.events());
}

TEST(Sample, KeepsTheRateUnderAnyLoad) {
  for (const uint64_t ns : {1'600u, 160'000u}) {
    Cpu cpu(2000, ns);
    while (cpu.now() < 1'200'000'000) cpu.wait(1, ns);
    // The first window does not know what comes, and takes more; not 12,500.
    const double first = cpu.sampled();
    EXPECT_LT(first, 2000) << ns;
    const uint64_t begin = cpu.now();
    while (cpu.now() - begin < 4'000'000'000) cpu.wait(1, ns);
    EXPECT_NEAR((cpu.sampled() - first) / 4, 2000, 100) << ns;
  }
}

// A burst, then calm: which is seen in full, but for the window that the burst
// still counts in.
TEST(Sample, FollowsTheLoad) {
  Cpu cpu(1000, 3);
  for (int i = 0; i < 100'000; i++) cpu.wait(1, 3200);
  const double hot = cpu.sampled();
  EXPECT_LT(hot, 1000);
  cpu.pass(1'000'000'000);
  for (int i = 0; i < 400; i++) {
    cpu.wait(2, 3200);
    cpu.pass(5'000'000);
  }
  EXPECT_GE(cpu.sampled() - hot, 400 - 100 / 5);
}

// Short waits, nine of ten, of one stack, and long ones of another, and some of
// a third: who waits how long is estimated without bias, over 40 runs to within
// four standard errors; and the sums are right in each.
TEST(Sample, EstimatesAreUnbiased) {
  constexpr int kRuns = 40;
  struct Truth {
    double total_ns = 0, count = 0;
  };
  std::map<uint64_t, Truth> truth;
  std::map<uint64_t, vector<double>> totals, counts;
  for (int run = 0; run < kRuns; run++) {
    Cpu cpu(500, static_cast<uint64_t>(run) * 7919 + 11);
    std::mt19937_64 random(42);  // the same waits in every run
    truth.clear();
    for (int i = 0; i < 100'000; i++) {
      const uint64_t dice = random() % 100;
      const uint64_t stack = dice < 90 ? 1 : dice < 98 ? 2 : 3;
      const uint64_t scale = stack == 1 ? 100 : stack == 2 ? 2000 : 100'000;
      const uint64_t ns = 16 * (scale + random() % scale);
      cpu.wait(stack, ns);
      truth[stack].total_ns += static_cast<double>(ns);
      truth[stack].count++;
    }
    EXPECT_LT(cpu.sampled(), 0.3 * cpu.events());
    const Capture capture = cpu.capture();
    uint64_t sum_ns = 0, sum_count = 0;
    for (const WaitRow& row : capture.waits) {
      sum_ns += row.ended.total_ns;
      sum_count += row.ended.count;
      EXPECT_EQ(row.ended.count, row.ended.histogram.count());
      EXPECT_NE(row.stack, kNone);
    }
    EXPECT_EQ(sum_ns, capture.locks[0].area_ns);
    EXPECT_EQ(sum_count, 100'000u);
    for (const auto& [stack, actual] : truth) {
      const WaitRow& row = row_of(capture, stack);
      totals[stack].push_back(static_cast<double>(row.ended.total_ns) / actual.total_ns);
      counts[stack].push_back(static_cast<double>(row.ended.count) / actual.count);
    }
  }
  for (const auto* estimates : {&totals, &counts}) {
    for (const auto& [stack, list] : *estimates) {
      const double mean = std::accumulate(list.begin(), list.end(), 0.0) / kRuns;
      double variance = 0;
      for (const double value : list) variance += (value - mean) * (value - mean) / (kRuns - 1);
      EXPECT_NEAR(mean, 1, 4 * std::sqrt(variance / kRuns) + 0.001)
          << (estimates == &totals ? "time" : "count") << " of stack " << stack;
      EXPECT_LT(std::sqrt(variance), 0.1) << stack;
    }
  }
}

// A few waits that are very long are all seen, and so are the many short ones.
TEST(Sample, LongWaitsAreNotCrowdedOut) {
  Cpu cpu(1000, 9);
  for (int i = 0; i < 300'000; i++) {
    cpu.wait(1, 16'000);
    if (i % 1000 == 0) cpu.wait(2, 1'600'000'000);
  }
  const Capture capture = cpu.capture();
  EXPECT_EQ(row_of(capture, 2).ended.count, 300u);
  EXPECT_EQ(row_of(capture, 2).ended.total_ns, 300ull * 1'600'000'000);
  EXPECT_EQ(row_of(capture, 1).ended.total_ns, 300'000ull * 16'000);
}

TEST(Sample, WeightsStayWithinTheirBits) {
  EXPECT_EQ(ls_weight_of_wait(1600, {0, 0}), 1600u);
  EXPECT_EQ(ls_weight_of_wait(1600, {1600, 0}), 1600u);
  EXPECT_NEAR(static_cast<double>(ls_weight_of_wait(1600, {160'000, 0})), 160'000, 3);
  EXPECT_NEAR(static_cast<double>(ls_weight_of_wait(1600, {160'000, 1600})), 80'000, 3);
  EXPECT_EQ(ls_weight_of_wait(1ull << 50, {LS_THRESHOLD_MAX, 0}), 1ull << 50);
  EXPECT_EQ(ls_weigh(1000, ls_inverse_of(LS_CERTAIN)), 1000u);
  EXPECT_LE(ls_inverse_of(1), LS_INVERSE_MAX);
}

}  // namespace
}  // namespace lockscope
