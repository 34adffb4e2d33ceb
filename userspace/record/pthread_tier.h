#pragma once

#include <sys/types.h>
#include <time.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/result.h"
#include "parse/file_parser.h"
#include "probe/pthread_probe.h"
#include "record/duty_cycle.h"
#include "record/held_objects.h"
#include "record/slice_books.h"

namespace lockscope {

/// Where the pthread tier looks.
enum class PthreadScope {
  Nowhere,
  Pointed,  ///< processes in which the futex tier sees a contended lock
  Targets,  ///< all of the recording's
};

/// The pthread tier of a recording: has probes in the processes that it is told of, as
/// soon as they have their libc, for as much of the time as the budget allows.
class PthreadTier {
 public:
  struct Options {
    uint32_t stack_rate = 0;
    double budget_percent = 0;  ///< of the CPU time of those processes
    bool mark_holders = false;  ///< for the holder tier
  };
  /// Loads nothing before it is needed. Both must outlive it.
  PthreadTier(FutexProbe& futex, FileParser& parser, const Options& options);

  /// Loads the programs now. Errors: Unsupported.
  Status load();
  /// The recording begins, and with it the first slice; after load().
  void begin();
  /// The recording is over: events do not count any more; probes are there still.
  void end();
  /// All probes go, which may take seconds on kernels before 6.6.
  void detach();

  /// Probes are to be in a process that has yet to become its program: in a libc like
  /// our own, from its first call on.
  void expect(pid_t pid);
  /// Probes are to be in this process: one that has become another program too.
  void want(pid_t pid);
  /// Places what is wanted and can be placed, and keeps the budget. Says on stderr what
  /// can't be placed. Returns how long it has time until the next time, in ns.
  uint64_t serve();

  /// Whether it was ever needed, and could be had.
  bool loaded() const { return probe_.has_value(); }
  uint64_t measured_run_ns() const { return probe_ ? probe_->measured_run_ns() : 0; }
  const PthreadMaps& maps() const { return probe_->maps(); }  ///< if loaded
  /// The last slice, of which the tables' threads are true.
  uint32_t slice() const { return probe_->slice(); }
  /// What the slices saw, if there was time without probes; else there is only one,
  /// and the tables have it all.
  const SliceBooks* books() const { return sliced_ ? &books_ : nullptr; }

 private:
  DutyCycle::Look look();
  void place(pid_t pid);
  void begin_slice(bool probes_first);
  void end_slice();
  void close_books();

  FutexProbe* futex_;
  FileParser* parser_;
  Options options_;
  std::optional<PthreadProbe> probe_;
  bool refused_ = false;
  std::optional<DutyCycle> duty_;
  std::set<pid_t> wanted_;   // and not placed yet in this slice
  std::set<pid_t> targets_;  // all that were ever wanted
  std::map<pid_t, uint64_t> cpu_before_, cpu_;  // of targets, when they were met, and now

  bool active_ = false;  // in a slice
  bool sliced_ = false;
  bool books_open_ = false;  // of the last slice
  uint64_t slice_start_ns_ = 0, slice_stop_ns_ = 0;
  DutyCycle::Look at_start_, at_stop_;
  uint64_t hits_ = 0;  // in the last slice; while it lasts, before it
  std::vector<HeldObject> held_;  // at the last slice's end
  SliceBooks books_;
  // Of an object, up to the last slice's end.
  struct Sums {
    uint64_t count = 0, ns = 0, hits = 0;
  };
  std::map<SliceBooks::Key, Sums> sums_;
};

}  // namespace lockscope
