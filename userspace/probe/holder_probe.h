#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "holder_tier.h"
#include "probe/futex_probe.h"

namespace lockscope {

/// Descriptors of the maps that user space reads. Owned by the probe.
struct HolderMaps {
  int holders = -1;
  int splits = -1;
  int activities = -1;
};

/// The holder tier in the kernel: looks at what the scheduler does with the threads
/// that a futex probe (and a pthread probe on top of it) marks as holders of a
/// contended lock. Works on that futex probe, which must outlive it and have room
/// for holders (ProbeSizes).
class HolderProbe {
 public:
  /// Loads and attaches the programs. No thread is marked until the futex probe is
  /// told to. Errors: Unsupported.
  static Result<HolderProbe> open(FutexProbe& futex, uint32_t stack_rate);

  HolderProbe(HolderProbe&&) noexcept;
  ~HolderProbe();

  const HolderMaps& maps() const;

  /// Whether holders are sampled on all CPUs: where perf events are refused, what
  /// they run is not known, only for how long.
  bool samples() const;

  /// As FutexProbe::measured_run_ns().
  uint64_t measured_run_ns() const;

 private:
  struct State;
  explicit HolderProbe(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace lockscope
