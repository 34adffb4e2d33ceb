#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "events.h"
#include "unwind/unwind_memory.h"

struct bpf_object;

namespace lockscope {

/// Which tasks the kernel programs look at. Everything is decided in the
/// kernel; what is not wanted costs a map look-up or less.
struct ProbeFilter {
  enum ls_filter kind = LS_FILTER_ALL;
  std::vector<pid_t> pids;    ///< LS_FILTER_TGIDS
  bool follow_forks = false;  ///< LS_FILTER_TGIDS: children of theirs as well
  std::string comm;           ///< LS_FILTER_COMM: of the process, at most 15 bytes
  int cgroup_fd = -1;         ///< LS_FILTER_CGROUP: a cgroup v2 directory
};

/// Stacks a second and CPU: costs a CPU about half a percent, and tells shares
/// of time to within one percent after a few seconds.
inline constexpr uint32_t kDefaultStackRate = 2000;

/// How much of what the programs keep.
struct ProbeSizes {
  /// Stacks a second and CPU above which they are taken for a sample
  /// (bpf/sampling.h); 0: all are taken.
  uint32_t stack_rate = kDefaultStackRate;
  uint32_t pthread_threads = 1;  ///< of the pthread tier
  uint32_t holders = 1;          ///< threads that hold a contended lock, for the holder tier
  uint32_t splits = 1;           ///< ... and such locks
};

/// Descriptors of the maps that user space reads. Owned by the probe.
struct FutexMaps {
  int threads = -1;
  int locks = -1;
  int waits = -1;
  int releases = -1;
  int pairs = -1;
  int stacks = -1;
  int cpus = -1;
  int notices = -1;
};

/// The futex tier in the kernel: loads and attaches the programs, and says when
/// the capture begins and ends. Detached and gone when destroyed.
class FutexProbe {
 public:
  /// Loads the variant with the newest features that this kernel takes, and
  /// attaches it; nothing is recorded until start(). Errors: Unsupported, with
  /// what is missing and what to do.
  static Result<FutexProbe> open(const ProbeFilter& filter, const ProbeSizes& sizes = {});

  FutexProbe(FutexProbe&&) noexcept;
  FutexProbe& operator=(FutexProbe&&) noexcept;
  ~FutexProbe();

  const FutexMaps& maps() const;
  const UnwindMaps& unwind_maps() const;

  /// "modern" or "compat": see futex.bpf.c.
  const std::string& variant() const;

  /// Begins the capture and enters the threads that sleep already. Returns the
  /// instant, CLOCK_MONOTONIC ns.
  uint64_t start();

  /// Ends the capture, for all CPUs at the same instant, which is returned:
  /// events from then on are ignored, the tables don't change any more.
  uint64_t stop();

  /// The target's threads that sleep in a futex call now, with registers.
  Result<std::vector<ls_blocked>> blocked_threads() const;

  /// For programs of other tiers, which share maps, by name, and the seed with
  /// which their keys are hashed.
  bpf_object* object() const;
  uint64_t hash_seed() const;
  /// Whether ends of sleeps are told to the pthread tier's threads, as of `later_ns`
  /// after the time is taken.
  void note_wake_ups(bool on, uint32_t later_ns = 0);

  /// Whether threads that have a contended lock are marked for the holder tier.
  void mark_holders(bool on);

  /// CPU time spent in the programs while the kernel kept run-time statistics
  /// (BPF_ENABLE_STATS), in ns since they were loaded.
  uint64_t measured_run_ns() const;

 private:
  struct State;
  explicit FutexProbe(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// CLOCK_MONOTONIC now, in ns, cut to LS_TICK_NS as the kernel programs do.
uint64_t monotonic_ns();

}  // namespace lockscope
