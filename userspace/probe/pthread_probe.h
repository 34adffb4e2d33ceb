#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>

#include "base/result.h"
#include "parse/file_parser.h"
#include "probe/futex_probe.h"
#include "pthread_tier.h"

namespace lockscope {

/// Descriptors of the maps that user space reads. Owned by the probe.
struct PthreadMaps {
  int threads = -1;
  int objects = -1;
  int hold_rows = -1;
  int orders = -1;
  int cpus = -1;
};

/// Threads that the pthread tier has room for.
inline constexpr uint32_t kPthreadThreads = 4096;

/// The pthread tier in the kernel: uprobes at libc's functions in chosen processes.
/// Works on a futex probe, which must outlive it, and tells it when sleeps end.
class PthreadProbe {
 public:
  /// Loads the programs; places no probe. Errors: Unsupported.
  static Result<PthreadProbe> open(FutexProbe& futex, uint32_t stack_rate);

  PthreadProbe(PthreadProbe&&) noexcept;
  ~PthreadProbe();

  const PthreadMaps& maps() const;
  /// Whether one link holds all probes of a process, so that they can come and go.
  bool fast() const;

  /// Finds out what a hit costs on this machine, by placing probes in ourselves for some
  /// 50 ms, and takes that out of holds from then on. Where probes are slow to come and
  /// go nothing is measured.
  Status calibrate(FileParser& parser);
  /// Of the probes so far, by enum ls_call.
  std::array<uint64_t, LS_CALLS> hits() const;
  /// CPU time that all hits have cost the targets so far, in ns.
  double spent_ns() const;

  /// Places probes in a process. Ok and false if it has no libc yet. Errors: Failed,
  /// with what about its libc is the matter.
  /// The libc is looked for in process `model`: for one that has yet to load its own,
  /// in another that is likely to have the same.
  Result<bool> attach(pid_t pid, pid_t model, FileParser& parser);
  /// Takes away all probes.
  void detach();

  /// Whether threads that have a contended object are marked for the holder tier.
  void mark_holders(bool on);

  /// As FutexProbe::measured_run_ns().
  uint64_t measured_run_ns() const;

  /// From now on, events count; what threads hold is not known.
  uint64_t begin_slice();
  /// Events do not count any more.
  uint64_t end_slice();
  /// The number of the last slice that began.
  uint32_t slice() const;

 private:
  struct State;
  explicit PthreadProbe(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace lockscope
