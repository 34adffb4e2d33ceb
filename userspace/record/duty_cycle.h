#pragma once

#include <cstdint>
#include <random>

namespace lockscope {

/// Says when probes are to be there, so that what they cost stays within a share of
/// the target's CPU time: all of the time if they are cheap, else for slices of it,
/// at times that have nothing to do with what the target does. Pure but for the clock
/// that the caller reads.
class DutyCycle {
 public:
  /// What there is to know at one moment; all since the recording began, in ns.
  struct Look {
    uint64_t now_ns = 0;         ///< of any clock
    uint64_t target_cpu_ns = 0;  ///< CPU time of the target
    uint64_t spent_ns = 0;       ///< ... of which the probes, hit so far, took
  };
  enum class Order { Stay, Attach, Detach };

  /// `percent` of the target's CPU time; 100: no limit. With `once`, probes that were taken away do
  /// not come back: where that takes seconds. `seed`: of when slices begin.
  DutyCycle(double percent, bool once, uint32_t seed)
      : share_(percent >= 100 ? kNoLimit : percent / 100), once_(once), random_(seed) {}

  /// What to do now. After Attach and Detach call did().
  Order decide(const Look& look);
  /// The order was carried out: what it looks like then.
  void did(Order order, const Look& look);

  /// When to ask again, in ns from the look.
  uint64_t next_look_ns() const { return next_look_ns_; }

  /// Of the holds that were seen to end in the last slice, the share that had begun
  /// before it: slices are to be longer than most holds.
  void note_cut(double share);

 private:
  static constexpr double kNoLimit = 1e6;

  double budget_ns(const Look& look) const;

  double share_;
  bool once_;
  std::minstd_rand random_;
  bool attached_ = false;
  bool began_ = false;
  bool was_detached_ = false;
  Look first_, slice_;           // at the beginning of the recording, of the slice
  double rate_ = 0;              // CPU time that probes take in a slice, ns per ns
  double accrual_ = 0;           // of the budget, ns per ns
  double overshoot_ns_ = 0;      // spent between the order to detach and its end
  double ordered_spent_ns_ = 0;  // when the order was given
  double slice_ns_ = kShortestSliceNs;  // the least, for the holds that there are
  double planned_ns_ = kShortestSliceNs;
  double planned_cost_ns_ = 0;
  double jitter_ = 1;
  uint64_t next_look_ns_ = 0;

  /// Long enough that coming and going is not most of it.
  static constexpr double kShortestSliceNs = 10e6;
  static constexpr double kLongestSliceNs = 1e9;
};

}  // namespace lockscope
