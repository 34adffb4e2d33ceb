#include "record/duty_cycle.h"

#include <algorithm>

namespace lockscope {
namespace {

// A target that hardly runs has hardly a budget, but probes in it hurt nobody: it
// counts as one that takes this much of a CPU.
constexpr double kLeastCpus = 0.1;

// The first slice comes before there is a budget: that of this much of a CPU's time.
constexpr double kAdvanceNs = 1e9;

// One slice in about this much time, if the budget allows more than the shortest.
constexpr double kCycleNs = 0.5e9;

// Until it is known.
constexpr double kFirstOvershootNs = 5e6;

// Times what a slice was expected to cost.
constexpr double kTooMuch = 3;

constexpr uint64_t kMs = 1'000'000;

}  // namespace

double DutyCycle::budget_ns(const Look& look) const {
  const double elapsed = static_cast<double>(look.now_ns - first_.now_ns);
  const double cpu = static_cast<double>(look.target_cpu_ns - first_.target_cpu_ns);
  return share_ * (std::max(cpu, kLeastCpus * elapsed) + kAdvanceNs);
}

DutyCycle::Order DutyCycle::decide(const Look& look) {
  if (!began_) {
    began_ = true;
    first_ = look;
    overshoot_ns_ = kFirstOvershootNs;
    planned_cost_ns_ = kFirstOvershootNs;
  }
  const double elapsed = static_cast<double>(look.now_ns - first_.now_ns);
  const double left = budget_ns(look) - static_cast<double>(look.spent_ns);
  next_look_ns_ = 50 * kMs;
  if (!attached_) {
    if (!was_detached_) return Order::Attach;
    if (once_) return Order::Stay;
    accrual_ = elapsed > 0 ? (budget_ns(look) - share_ * kAdvanceNs) / elapsed : 0;
    planned_ns_ =
        std::clamp(rate_ > 0 ? kCycleNs * accrual_ / rate_ : kCycleNs, slice_ns_, kLongestSliceNs);
    planned_cost_ns_ = rate_ * planned_ns_ + overshoot_ns_;
    const double wanted = planned_cost_ns_ * jitter_;
    if (left >= wanted) return Order::Attach;
    if (accrual_ > 0) {
      const double wait_ns = (wanted - left) / accrual_;
      next_look_ns_ = static_cast<uint64_t>(std::clamp(wait_ns, 1e6, 50e6));
    }
    return Order::Stay;
  }

  const double in_slice = static_cast<double>(look.now_ns - slice_.now_ns);
  const double spent = static_cast<double>(look.spent_ns - slice_.spent_ns);
  if (in_slice > 0) rate_ = spent / in_slice;
  // Its length does not depend on what is seen in it, or what is busy would be seen for
  // less of the time; unless that is much more than could be expected.
  if (left <= overshoot_ns_ && (in_slice >= planned_ns_ || spent > kTooMuch * planned_cost_ns_)) {
    ordered_spent_ns_ = static_cast<double>(look.spent_ns);
    return Order::Detach;
  }
  const double lasts_ns = rate_ > 0 ? (left - overshoot_ns_) / rate_ : 50e6;
  next_look_ns_ = static_cast<uint64_t>(
      std::clamp(in_slice < planned_ns_ ? planned_ns_ - in_slice : lasts_ns / 2, 1e6, 50e6));
  // How fast it goes is not known yet.
  if (planned_cost_ns_ <= kFirstOvershootNs) next_look_ns_ = std::min(next_look_ns_, 2 * kMs);
  return Order::Stay;
}

void DutyCycle::did(Order order, const Look& look) {
  if (order == Order::Attach) {
    attached_ = true;
    slice_ = look;
    next_look_ns_ = 2 * kMs;
  } else if (order == Order::Detach) {
    attached_ = false;
    was_detached_ = true;
    overshoot_ns_ = static_cast<double>(look.spent_ns) - ordered_spent_ns_;
    jitter_ = std::uniform_real_distribution<double>(0.7, 1.3)(random_);
    next_look_ns_ = 50 * kMs;
  }
}

void DutyCycle::note_cut(double share) {
  constexpr double kMuch = 0.2;
  if (share > kMuch) slice_ns_ = std::min(slice_ns_ * 2, kLongestSliceNs);
}

}  // namespace lockscope
