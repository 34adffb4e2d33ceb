#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "capture/capture.h"
#include "diagnose/primitive.h"

namespace lockscope {

/// Time at one stack, of one site.
struct StackShare {
  Index stack = kNone;
  uint64_t ns = 0;
  uint64_t count = 0;
};

/// What holders of one site did at one stack.
struct ActivityShare {
  Index stack = kNone;
  int32_t call = 0;  ///< as in ActivityRow
  uint64_t ns = 0;
  uint64_t count = 0;
};

/// One lock or place of waiting as a programmer knows it: all futex words of
/// one primitive, with everything that happened there.
struct Site {
  Primitive primitive = Primitive::Unknown;
  bool is_lock = false;      ///< waited for because somebody holds it
  bool shared = false;       ///< between processes
  Index process = kNone;     ///< of most of the waiting
  uint64_t address = 0;      ///< of the object, in that process
  uint32_t traits = 0;       ///< enum ls_wait_trait, of all words
  std::string name;          ///< variable, or primitive and function; see name_site()
  int32_t owner_tid = 0;     ///< at the end, when known

  Durations wait;            ///< ended waits
  uint64_t in_flight = 0;
  uint64_t in_flight_ns = 0;
  uint64_t in_flight_max_ns = 0;
  uint64_t sleeps = 0;
  uint64_t timeouts = 0;
  uint64_t blame_ns = 0;     ///< charged to releases
  int64_t unreleased_ns = 0; ///< charged to no release yet
  /// Contended holds; none where too many of them can't be told for sure (a
  /// release with nobody waiting is not seen unless the lock's word tells).
  /// With `object`: all of them, contended or not, those that last included.
  Durations hold;
  Index object = kNone;      ///< what the pthread tier saw of it; kNone: nothing
  /// " after a wait" where only such holds are known, else nothing.
  const char* which_holds() const { return object == kNone ? " after a wait" : ""; }
  uint64_t refused_holds = 0;
  uint64_t waited_releases = 0;  ///< releases while somebody waited
  uint64_t self_releases = 0;    ///< ... by a thread that had waited here itself
  uint32_t waiters = 0;      ///< distinct threads
  uint32_t holders = 0;      ///< distinct threads that released it to a waiter
  uint32_t max_waiters = 0;  ///< at once

  std::vector<StackShare> waiter_stacks;  ///< by waiting, most first
  std::vector<StackShare> holder_stacks;  ///< by blame, most first
  std::vector<StackShare> hold_stacks;    ///< by hold time, most first

  /// Holds as the holder tier saw them, of threads for which the lock was known to be
  /// contended when they got it: most of `hold`, or all. `held_ns` is 0 if none were.
  HoldSplit split;
  std::vector<ActivityShare> activities;  ///< of holders, most time first
  /// `hold`, split in the same proportions.
  HoldSplit hold_split() const;

  /// All waiting: ended and in flight.
  uint64_t wait_ns() const { return wait.total_ns + in_flight_ns; }
  /// The longest wait, ended or not.
  uint64_t max_wait_ns() const {
    return wait.max_ns > in_flight_max_ns ? wait.max_ns : in_flight_max_ns;
  }
};

/// What one process has to do with it all.
struct ProcessTotals {
  uint64_t lock_wait_ns = 0;  ///< its threads waited for locks
  uint64_t idle_wait_ns = 0;  ///< ... for work, time or a thread's end
  int64_t blame_ns = 0;       ///< lock waiting, anyone's, charged to it
};

/// A capture put together by sites. The sums agree: over all processes, blame
/// equals lock waiting, exactly.
struct SiteView {
  std::vector<Site> sites;            ///< most waiting first
  std::vector<ProcessTotals> totals;  ///< one for each of capture.processes
  std::vector<Index> site_of_lock;    ///< one for each of capture.locks
};

/// Puts the futex words of a capture together into sites. Pure.
SiteView build_sites(const SymbolizedCapture& capture);

/// The first frame of a stack that belongs to the program rather than to the
/// lock's implementation; nullptr if there is none.
const Frame* calling_frame(const std::vector<Frame>& frames);

}  // namespace lockscope
