#include "aggregate/aggregate.h"

#include <algorithm>
#include <bit>
#include <unordered_map>

#include "aggregate/holder_tables.h"
#include "aggregate/pthread_objects.h"
#include "aggregate/sample.h"
#include "sampling.h"

namespace lockscope {
namespace {

struct KeyHash {
  size_t operator()(const std::pair<uint64_t, uint64_t>& key) const {
    return key.first ^ (key.second * 0x9e3779b97f4a7c15ull);
  }
};

constexpr uint64_t kAreaMask = (1ull << LS_AREA_BITS) - 1;

// The area of a book at an instant, in ticks modulo 2^48: as book_area() in
// books.bpf.h.
uint64_t book_area(uint64_t book, uint64_t at_ns) {
  const uint64_t waiters = book & LS_BOOK_COUNT_MASK;
  return ((book >> LS_BOOK_COUNT_BITS) + waiters * (at_ns >> LS_TICK_SHIFT)) & kAreaMask;
}

int64_t signed_ticks(uint64_t ticks) {
  constexpr int kUnused = 64 - LS_AREA_BITS;
  return static_cast<int64_t>(ticks << kUnused) >> kUnused;
}

uint32_t count_bits(const __u64 (&words)[LS_THREAD_BITS / 64]) {
  int bits = 0;
  for (const __u64 word : words) bits += std::popcount(static_cast<uint64_t>(word));
  return static_cast<uint32_t>(bits);
}

Histogram to_histogram(const __u32 (&slots)[LS_HIST_SLOTS]) {
  Histogram histogram;
  std::copy(std::begin(slots), std::end(slots), histogram.slots.begin());
  return histogram;
}

Durations ended_waits(const ls_wait_sums& sums) {
  const Histogram histogram = to_histogram(sums.hist);
  return {histogram.count(), sums.total_ns, sums.max_ns, histogram};
}

Durations holds(const ls_release_sums& sums) {
  const Histogram histogram = to_histogram(sums.hold_hist);
  return {histogram.count(), sums.hold_total_ns, sums.hold_max_ns, histogram};
}

constexpr double kWeightOne = 1 << LS_WEIGHT_SHIFT;

double excess(double weight, uint64_t own) {
  return std::max(0.0, weight - static_cast<double>(own));
}

bool none(const std::vector<double>& weights) {
  return std::none_of(weights.begin(), weights.end(), [](double weight) { return weight > 0; });
}

// What the rows of a lock have to add up to.
struct Sums {
  WaitRow waits;
  ReleaseRow releases;
  PairRow pairs;
};

// What a row stands for, itself included.
struct ReleaseWeights {
  double count, blame_ns, hold_ns;
};

size_t hist_slot(uint64_t ns) {
  const size_t slot = ns == 0 ? 0 : static_cast<size_t>(std::bit_width(ns) - 1);
  return std::min<size_t>(slot, LS_HIST_SLOTS - 1);
}

uint32_t depth_of(const ls_frames& frames) {
  return std::min<uint32_t>(frames.n, LS_UNWIND_MAX_FRAMES);
}

class Aggregator {
 public:
  explicit Aggregator(const RawTables& tables) : tables_(tables) {}

  Capture run() {
    capture_.duration_ns = tables_.stop_ns - tables_.start_ns;
    for (const auto& [id, process] : tables_.processes) {
      process_index_[id] = static_cast<Index>(capture_.processes.size());
      capture_.processes.push_back(process);
    }
    for (const auto& [key, frames] : tables_.stacks) {
      stack_index_[key.hash] = add_stack(key.process, frames);
    }
    for (const auto& [id, lock] : tables_.locks) add_lock(id, lock);
    for (const auto& [key, row] : tables_.waits) add_wait(key, row);
    for (const auto& [tid, thread] : tables_.threads) add_in_flight(tid, thread);
    for (const auto& [key, row] : tables_.releases) add_release(key, row);
    for (const auto& [key, row] : tables_.pairs) add_pair(key, row);
    scale_up_samples();
    fill_quality();
    const KeyIndices indices{[this](uint64_t id) { return process_of(id); },
                             [this](uint64_t id) { return stack_of(id); },
                             [this](uint64_t id) { return lock_of(id); }};
    add_pthread_objects(tables_, indices, capture_);
    add_holder_tables(tables_, indices, capture_);
    return std::move(capture_);
  }

 private:
  // A process that was gone before anything could be read of it is known by
  // its PID alone.
  Index process_of(uint64_t id) {
    const auto [entry, is_new] =
        process_index_.emplace(id, static_cast<Index>(capture_.processes.size()));
    if (is_new) {
      Process process;
      process.id = id;
      process.pid = static_cast<int32_t>(LS_PROCESS_TGID(id));
      capture_.processes.push_back(std::move(process));
    }
    return entry->second;
  }

  Index lock_of(uint64_t id) const {
    const auto found = lock_index_.find(id);
    return found == lock_index_.end() ? kNone : found->second;
  }

  Index stack_of(uint64_t id) const {
    const auto found = stack_index_.find(id);
    return found == stack_index_.end() ? kNone : found->second;
  }

  Index add_stack(uint64_t process, const ls_frames& frames) {
    Stack stack;
    stack.process = process_of(process);
    stack.flags = frames.flags;
    stack.addresses.assign(frames.ips, frames.ips + depth_of(frames));
    capture_.stacks.push_back(std::move(stack));
    return static_cast<Index>(capture_.stacks.size() - 1);
  }

  void add_lock(uint64_t id, const ls_lock& raw) {
    Lock lock;
    lock.id = id;
    lock.process = process_of(raw.process);
    lock.address = raw.address;
    lock.shared = raw.key.type == LS_LOCK_SHARED;
    if (lock.shared) {
      lock.inode = raw.key.space;
      lock.file_offset = raw.key.offset;
      lock.device = raw.key.device;
    }
    lock.traits = raw.traits;
    lock.max_waiters = raw.max_waiters;
    lock.waiter_threads = count_bits(raw.waiter_threads);
    lock.releaser_threads = count_bits(raw.releaser_threads);
    lock.refused_holds = raw.refused_holds;
    lock.waited_releases = raw.waited_releases;
    lock.self_releases = raw.self_releases;
    const uint64_t area = book_area(raw.book, tables_.stop_ns);
    lock.area_ns = area << LS_TICK_SHIFT;
    lock.unreleased_ns = signed_ticks(area - raw.charged) * LS_TICK_NS;
    if (const auto owner = tables_.owners.find(id); owner != tables_.owners.end()) {
      lock.owner_tid = owner->second;
    }
    lock_index_[id] = static_cast<Index>(capture_.locks.size());
    capture_.locks.push_back(std::move(lock));
    Sums& sums = sums_.emplace_back();
    sums.waits.ended = ended_waits(raw.waits);
    sums.waits.sleeps = raw.waits.sleeps;
    sums.waits.timeouts = raw.waits.timeouts;
    sums.releases.count = raw.releases.count;
    sums.releases.blame_ns = static_cast<uint64_t>(raw.charged) << LS_TICK_SHIFT;
    sums.releases.hold = holds(raw.releases);
    sums.pairs.count = raw.waits.sleeps;
    sums.pairs.total_ns = raw.waits.total_ns;
  }

  size_t wait_row(Index lock, Index stack) {
    const auto [entry, is_new] =
        wait_index_.emplace(std::pair<uint64_t, uint64_t>(lock, stack), capture_.waits.size());
    if (is_new) {
      capture_.waits.push_back({});
      capture_.waits.back().lock = lock;
      capture_.waits.back().stack = stack;
      wait_weights_.push_back(0);
    }
    return entry->second;
  }

  void add_wait(const ls_row_key& key, const ls_wait_row& raw) {
    const Durations ended = ended_waits(raw.sums);
    if (ended.count == 0) return;
    const size_t index = wait_row(lock_of(key.lock), stack_of(key.stack));
    WaitRow& row = capture_.waits[index];
    row.ended.add(ended);
    row.sleeps += raw.sums.sleeps;
    row.timeouts += raw.sums.timeouts;
    wait_weights_[index] += static_cast<double>(raw.weight_ns);
  }

  void add_in_flight(uint32_t tid, const ls_thread& thread) {
    if (thread.phase != LS_PHASE_WAITING || thread.lock == 0) return;
    Index stack = stack_of(thread.stack);
    if (stack == kNone) {
      const auto asleep = tables_.asleep_stacks.find(tid);
      if (asleep != tables_.asleep_stacks.end()) stack = asleep_stack(thread.process, asleep->second);
    }
    const Index lock = lock_of(thread.lock);
    const size_t index = wait_row(lock, stack);
    WaitRow& row = capture_.waits[index];
    const uint64_t began = std::min<uint64_t>(thread.since_ns, tables_.stop_ns);
    uint64_t ns = tables_.stop_ns - began;
    if (thread.episode_ns != 0 && lock != kNone) {
      // It had woken in between without getting the lock: that part stands
      // among the ended waits, but is not over.
      ns += take_out(sums_[lock].waits.ended, thread.episode_ns);
      if (thread.sampled) {
        take_out(row.ended, thread.episode_ns);
        wait_weights_[index] -=
            static_cast<double>(ls_weight_of_wait(thread.episode_ns, thread.odds));
      }
    }
    row.in_flight++;
    row.in_flight_ns += ns;
    row.in_flight_max_ns = std::max(row.in_flight_max_ns, ns);
    row.before_capture += thread.before_attach;
  }

  // Threads of a pool sleep on the same stack: keep it once.
  Index asleep_stack(uint64_t process_id, const ls_frames& frames) {
    const Index process = process_of(process_id);
    for (const Index index : asleep_) {
      const Stack& stack = capture_.stacks[index];
      if (stack.process == process &&
          std::equal(stack.addresses.begin(), stack.addresses.end(), frames.ips,
                     frames.ips + depth_of(frames)))
        return index;
    }
    asleep_.push_back(add_stack(process_id, frames));
    return asleep_.back();
  }

  // Takes a wait out of those that ended, as far as it is there. Returns how much.
  static uint64_t take_out(Durations& ended, uint64_t wait_ns) {
    if (ended.count == 0) return 0;
    const uint64_t ns = std::min(wait_ns, ended.total_ns);
    uint64_t& slot = ended.histogram.slots[hist_slot(wait_ns)];
    ended.count--;
    ended.total_ns -= ns;
    if (slot > 0) slot--;
    return ns;
  }

  void add_release(const ls_row_key& key, const ls_release_row& raw) {
    if (raw.sums.count == 0 && raw.blame_ns == 0) return;
    ReleaseRow row;
    row.lock = lock_of(key.lock);
    row.stack = stack_of(key.stack);
    row.count = raw.sums.count;
    row.blame_ns = raw.blame_ns;
    row.hold = holds(raw.sums);
    capture_.releases.push_back(row);
    release_weights_.push_back({static_cast<double>(raw.weight_count) / kWeightOne,
                                static_cast<double>(raw.weight_blame_ns),
                                static_cast<double>(raw.weight_hold_ns)});
  }

  void add_pair(const ls_pair_key& key, const ls_pair_row& raw) {
    capture_.pairs.push_back({lock_of(key.lock), stack_of(key.waiter), stack_of(key.waker),
                              raw.count, raw.total_ns});
    pair_weights_.push_back(static_cast<double>(raw.weight_ns));
  }

  // Brings the rows of each lock up to its sums. Where none stands for more than
  // itself, what is missing is taken to be like what is there; where rows were
  // lost for want of room, it may well not be, and gets a row without a stack.
  void scale_up_samples() {
    const bool lost_waits = tables_.counters[LS_LOST_WAIT_ROWS_FULL] != 0;
    const bool lost_releases = tables_.counters[LS_LOST_RELEASE_ROWS_FULL] != 0;
    const bool lost_pairs = tables_.counters[LS_LOST_PAIR_ROWS_FULL] != 0;
    const auto waits = by_lock(capture_.waits);
    const auto releases = by_lock(capture_.releases);
    const auto pairs = by_lock(capture_.pairs);
    for (Index lock = 0; lock < capture_.locks.size(); lock++) {
      scale_up_waits(lock, waits[lock], lost_waits);
      scale_up_releases(lock, releases[lock], lost_releases);
      if (!lost_pairs) scale_up_pairs(lock, pairs[lock]);
    }
  }

  template <class Row>
  std::vector<std::vector<size_t>> by_lock(const std::vector<Row>& rows) const {
    std::vector<std::vector<size_t>> lists(capture_.locks.size());
    for (size_t i = 0; i < rows.size(); i++) {
      if (rows[i].lock != kNone) lists[rows[i].lock].push_back(i);
    }
    return lists;
  }

  void scale_up_waits(Index lock, std::vector<size_t> rows, bool lost) {
    const WaitRow& sums = sums_[lock].waits;
    uint64_t present = 0;
    SampledWaits sample;
    for (const size_t row : rows) {
      const uint64_t own = capture_.waits[row].ended.total_ns;
      present += own;
      sample.excess_ns.push_back(lost ? 0 : excess(wait_weights_[row], own));
    }
    if (present < sums.ended.total_ns && none(sample.excess_ns)) {
      for (size_t i = 0; i < rows.size() && !lost; i++) {
        sample.excess_ns[i] = static_cast<double>(capture_.waits[rows[i]].ended.total_ns);
      }
      if (none(sample.excess_ns)) {
        rows.push_back(wait_row(lock, kNone));
        sample.excess_ns.push_back(1);
      }
    }
    for (const size_t row : rows) sample.rows.push_back(&capture_.waits[row]);
    scale_up(sample, sums);
  }

  void scale_up_releases(Index lock, std::vector<size_t> rows, bool lost) {
    const ReleaseRow& sums = sums_[lock].releases;
    SampledReleases sample;
    ReleaseRow present;
    for (const size_t index : rows) {
      const ReleaseRow& row = capture_.releases[index];
      const ReleaseWeights& weights = release_weights_[index];
      present.count += row.count;
      present.blame_ns += row.blame_ns;
      present.hold.total_ns += row.hold.total_ns;
      sample.excess_count.push_back(lost ? 0 : excess(weights.count, row.count));
      sample.excess_blame_ns.push_back(lost ? 0 : excess(weights.blame_ns, row.blame_ns));
      sample.excess_hold_ns.push_back(lost ? 0 : excess(weights.hold_ns, row.hold.total_ns));
    }
    const bool count = present.count < sums.count && none(sample.excess_count);
    const bool blame = present.blame_ns < sums.blame_ns && none(sample.excess_blame_ns);
    const bool hold =
        present.hold.total_ns < sums.hold.total_ns && none(sample.excess_hold_ns);
    if ((count || blame || hold) && (lost || present.count == 0)) {
      rows.push_back(capture_.releases.size());
      capture_.releases.push_back({});
      capture_.releases.back().lock = lock;
      sample.excess_count.push_back(count);
      sample.excess_blame_ns.push_back(blame);
      sample.excess_hold_ns.push_back(hold);
    }
    for (size_t i = 0; i < rows.size() && !lost && present.count > 0; i++) {
      const auto own = static_cast<double>(capture_.releases[rows[i]].count);
      if (count) sample.excess_count[i] = own;
      if (blame) sample.excess_blame_ns[i] = own;
      if (hold) sample.excess_hold_ns[i] = own;
    }
    for (const size_t row : rows) sample.rows.push_back(&capture_.releases[row]);
    scale_up(sample, sums);
  }

  void scale_up_pairs(Index lock, const std::vector<size_t>& rows) {
    SampledPairs sample;
    for (const size_t row : rows) {
      sample.rows.push_back(&capture_.pairs[row]);
      sample.excess_ns.push_back(excess(pair_weights_[row], capture_.pairs[row].total_ns));
    }
    scale_up(sample, sums_[lock].pairs);
  }

  void fill_quality() {
    Quality& quality = capture_.quality;
    const auto& counters = tables_.counters;
    quality.calls = counters[LS_COUNT_CALLS];
    quality.stacks_taken = counters[LS_COUNT_STACKS];
    quality.events = counters[LS_COUNT_EVENTS];
    quality.sampled_events = counters[LS_COUNT_SAMPLED];
    quality.unmatched = counters[LS_UNMATCHED_HOLDS];
    constexpr std::pair<ls_counter, const char*> kReasons[] = {
        {LS_LOST_LOCK_TABLE_FULL, "lock_table_full"},
        {LS_LOST_LOCK_TABLE_FULL_NS, "lock_table_full_ns"},
        {LS_LOST_WAIT_ROWS_FULL, "wait_rows_full"},
        {LS_LOST_RELEASE_ROWS_FULL, "release_rows_full"},
        {LS_LOST_PAIR_ROWS_FULL, "pair_rows_full"},
        {LS_LOST_THREAD_TABLE_FULL, "thread_table_full"},
        {LS_LOST_STACK_TABLE_FULL, "stack_table_full"},
        {LS_LOST_EXIT_MISSED, "exit_missed"},
        {LS_LOST_SHARED_KEY, "shared_key_unreadable"},
        {LS_LOST_NOTICES, "notices"},
        {LS_LOST_HELD_FULL, "held_locks_full"},
        {LS_LOST_STACK_BUSY, "stack_busy"},
        {LS_LOST_HOLDERS_FULL, "holders_full"},
        {LS_LOST_SPLITS_FULL, "hold_splits_full"},
        {LS_LOST_ACTIVITIES_FULL, "holder_activities_full"},
    };
    for (const auto& [counter, reason] : kReasons) {
      if (counters[counter] != 0) quality.lost[reason] = counters[counter];
    }
    for (const Stack& stack : capture_.stacks) {
      quality.complete_stacks += stack.whole();
      quality.truncated_stacks += (stack.flags & LS_UNWIND_TRUNCATED) != 0;
      quality.guessed_stacks += (stack.flags & LS_UNWIND_FP_GUESS) != 0;
      quality.broken_stacks += (stack.flags & (LS_UNWIND_BROKEN | LS_UNWIND_NO_TABLE)) != 0;
    }
  }

  const RawTables& tables_;
  Capture capture_;
  std::unordered_map<uint64_t, Index> process_index_, lock_index_, stack_index_;
  std::unordered_map<std::pair<uint64_t, uint64_t>, size_t, KeyHash> wait_index_;
  std::vector<Index> asleep_;
  std::vector<Sums> sums_;                       // as capture_.locks
  std::vector<double> wait_weights_;             // as capture_.waits
  std::vector<ReleaseWeights> release_weights_;  // as capture_.releases
  std::vector<double> pair_weights_;             // as capture_.pairs
};

}  // namespace

Capture aggregate(const RawTables& tables) { return Aggregator(tables).run(); }

}  // namespace lockscope
