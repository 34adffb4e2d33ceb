#include "record/duty_cycle.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

namespace lockscope {
namespace {

constexpr double kMs = 1e6, kSecond = 1e9;

// A target on one CPU, of whose time probes take `rate` while they are there; to place
// and to remove them takes `move_ns`.
struct Simulated {
  std::function<double(double now_ns)> rate;
  double move_ns = 5 * kMs;

  double now_ns = 0, spent_ns = 0, attached_ns = 0;
  std::vector<double> slices_ns;

  void run(DutyCycle& duty, double seconds) {
    bool attached = false;
    double since_ns = 0;
    const auto look = [&] {
      return DutyCycle::Look{static_cast<uint64_t>(now_ns), static_cast<uint64_t>(now_ns),
                             static_cast<uint64_t>(spent_ns)};
    };
    const auto pass = [&](double ns, bool hit) {
      for (double left = ns; left > 0; left -= kMs) {
        const double step = std::min(left, kMs);
        if (hit) spent_ns += step * rate(now_ns);
        now_ns += step;
      }
    };
    while (now_ns < seconds * kSecond) {
      const DutyCycle::Order order = duty.decide(look());
      if (order == DutyCycle::Order::Attach) {
        pass(move_ns, true);
        attached = true;
        since_ns = now_ns;
        duty.did(order, look());
      } else if (order == DutyCycle::Order::Detach) {
        slices_ns.push_back(now_ns - since_ns);
        attached_ns += now_ns - since_ns;
        pass(move_ns, true);
        attached = false;
        duty.did(order, look());
      } else {
        pass(static_cast<double>(std::max<uint64_t>(duty.next_look_ns(), 1'000'000)), attached);
      }
    }
    if (attached) attached_ns += now_ns - since_ns;
  }
};

TEST(DutyCycle, CheapProbesStay) {
  DutyCycle duty(5, false, 1);
  Simulated target{[](double) { return 0.03; }};
  target.run(duty, 20);
  EXPECT_TRUE(target.slices_ns.empty());
  EXPECT_GT(target.attached_ns, 19.9 * kSecond);
}

TEST(DutyCycle, ATargetThatDoesNothingElse) {
  for (const double percent : {1.0, 5.0}) {
    DutyCycle duty(percent, false, 1);
    Simulated target{[](double) { return 1.0; }};
    target.run(duty, 30);
    // The advance is that of a second.
    EXPECT_LT(target.spent_ns, percent / 100 * 32 * kSecond) << percent;
    EXPECT_GT(target.spent_ns, percent / 100 * 25 * kSecond) << "the budget is there to be used";
    EXPECT_GE(target.slices_ns.size(), 10u) << percent;
    for (const double slice : target.slices_ns) EXPECT_GE(slice, 9.9 * kMs);
  }
}

TEST(DutyCycle, InBetween) {
  DutyCycle duty(5, false, 1);
  Simulated target{[](double) { return 0.1; }};
  target.run(duty, 30);
  EXPECT_NEAR(target.attached_ns / target.now_ns, 0.5, 0.1);
  EXPECT_GE(target.slices_ns.size(), 20u);
}

TEST(DutyCycle, ItHasNoLimitAt100) {
  DutyCycle duty(100, false, 1);
  Simulated target{[](double) { return 1.0; }};
  target.run(duty, 5);
  EXPECT_TRUE(target.slices_ns.empty());
}

// Whether it is busy or quiet in a slice does not decide about the slice's length.
TEST(DutyCycle, SlicesAreAsLongInBusyTimes) {
  DutyCycle duty(5, false, 7);
  // Four times as much in every other 3 ms.
  Simulated target{[](double now) { return static_cast<int>(now / (3 * kMs)) % 2 ? 0.8 : 0.2; }};
  target.run(duty, 60);
  ASSERT_GT(target.slices_ns.size(), 50u);
  double busy = 0;
  for (size_t i = 1; i < target.slices_ns.size(); i++) {
    EXPECT_GE(target.slices_ns[i], 9.9 * kMs);
    busy += target.slices_ns[i];
  }
  EXPECT_LT(target.spent_ns, 0.05 * 62.5 * kSecond);
}

TEST(DutyCycle, OnceMeansOnce) {
  DutyCycle duty(1, true, 1);
  Simulated target{[](double) { return 1.0; }};
  target.run(duty, 30);
  EXPECT_EQ(target.slices_ns.size(), 1u);
}

TEST(DutyCycle, LongHoldsMakeLongSlices) {
  DutyCycle duty(5, false, 1), longer(5, false, 1);
  for (int i = 0; i < 4; i++) longer.note_cut(0.5);
  longer.note_cut(0.1);
  Simulated target{[](double) { return 0.9; }}, same = target;
  target.run(duty, 30);
  same.run(longer, 30);
  ASSERT_GE(same.slices_ns.size(), 2u);
  EXPECT_GE(same.slices_ns[1], 160 * kMs);
  EXPECT_LT(target.slices_ns[1], 50 * kMs);
  EXPECT_LT(same.spent_ns, 0.05 * 36 * kSecond);
}

}  // namespace
}  // namespace lockscope
