#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "capture/histogram.h"
#include "events.h"
#include "process/maps.h"
#include "symbolize/frame.h"
#include "unwind.h"

namespace lockscope {

/// Index into one of a capture's lists; kNone where there is nothing.
using Index = uint32_t;
inline constexpr Index kNone = UINT32_MAX;

/// What is known about the data itself.
struct Quality {
  /// Reason -> number of events dropped or not matched. Only what happened.
  std::map<std::string, uint64_t> lost;
  uint64_t truncated_stacks = 0;   ///< deeper than was kept
  uint64_t broken_stacks = 0;      ///< ended before the thread's start
  uint64_t guessed_stacks = 0;     ///< by frame pointers that nothing vouches for
  uint64_t complete_stacks = 0;    ///< whole: see Stack::whole()
  uint64_t unmatched = 0;          ///< releases and call ends without their beginning
  uint64_t calls = 0;              ///< futex calls looked at
  uint64_t stacks_taken = 0;
  uint64_t events = 0;             ///< sleeps and releases
  uint64_t sampled_events = 0;     ///< ... of which the stack was taken: all, or a sample
  /// Of the pthread tier: slices of time in which probes were there, and their share of
  /// the recording; none if they were there all of the time.
  uint64_t pthread_slices = 0;
  double pthread_share = 1;
  double self_cpu_share = 0;       ///< the tool's own CPU time, of all the machine's
};

/// One process (one program run by it: exec makes another).
struct Process {
  uint64_t id = 0;  ///< see LS_PROCESS_TGID in events.h
  int32_t pid = 0;
  std::string comm;
  std::string exe;
  std::string language;  ///< "c", "c++", "go", ...; empty when not known
  uint32_t threads = 0;  ///< when last looked at
  std::vector<Mapping> mappings;  ///< executable ones
};

/// One futex word. Two make a condition variable or rwlock: see sites.h.
struct Lock {
  uint64_t id = 0;
  Index process = kNone;  ///< the first that waited; private locks: the only one
  bool shared = false;    ///< between processes: identified by device, inode, offset
  uint64_t address = 0;   ///< in `process`
  uint64_t inode = 0;
  uint64_t file_offset = 0;
  uint32_t device = 0;
  uint32_t traits = 0;        ///< enum ls_wait_trait
  uint32_t max_waiters = 0;   ///< at once
  uint32_t waiter_threads = 0;    ///< distinct threads that waited
  uint32_t releaser_threads = 0;  ///< distinct threads that released it to a waiter
  uint32_t waited_releases = 0;   ///< releases while somebody waited
  uint32_t self_releases = 0;     ///< ... by a thread that had waited here itself
  uint32_t refused_holds = 0;  ///< acquisitions whose release can't be told for sure
  /// Waiting since the last release, until the end of the capture: charged to
  /// no release. Negative if waiting was taken out of the books afterwards.
  int64_t unreleased_ns = 0;
  /// The waiting in the kernel's books, from the word itself. Equals the sum
  /// over the wait rows; tests assert it.
  uint64_t area_ns = 0;
  int32_t owner_tid = 0;  ///< of a glibc mutex with waiters at the end; 0: not known
  std::string object;     ///< name of the variable, for static locks; may be empty
  uint64_t object_offset = 0;  ///< of the word in it
};

/// Addresses, innermost first, each within the instruction that was being
/// executed: callers' are return addresses less one.
struct Stack {
  Index process = kNone;
  uint32_t flags = 0;  ///< enum ls_unwind_flag
  std::vector<uint64_t> addresses;

  /// Every frame up to the thread's start, each of them vouched for by tables:
  /// a guess that arrives there may have left frames out on its way.
  bool whole() const {
    return (flags & LS_UNWIND_COMPLETE) && !(flags & (LS_UNWIND_FP_GUESS | LS_UNWIND_NO_TABLE));
  }
};

/// Durations of one kind at one place.
struct Durations {
  uint64_t count = 0;
  uint64_t total_ns = 0;
  uint64_t max_ns = 0;
  Histogram histogram;

  void add(const Durations& other) {
    count += other.count;
    total_ns += other.total_ns;
    if (max_ns < other.max_ns) max_ns = other.max_ns;
    histogram.add(other.histogram);
  }
};

/// Waits on one lock from one stack.
struct WaitRow {
  Index lock = kNone;
  Index stack = kNone;
  Durations ended;          ///< waits that ended
  uint64_t sleeps = 0;      ///< futex calls that blocked, in those
  uint64_t timeouts = 0;
  uint64_t in_flight = 0;   ///< waits not over at the end of the capture
  uint64_t in_flight_ns = 0;      ///< their time so far
  uint64_t in_flight_max_ns = 0;
  uint64_t before_capture = 0;    ///< of in_flight: asleep since before the capture

  uint64_t total_ns() const { return ended.total_ns + in_flight_ns; }
};

/// Releases of one lock from one stack.
struct ReleaseRow {
  Index lock = kNone;
  Index stack = kNone;
  uint64_t count = 0;
  uint64_t blame_ns = 0;  ///< others' waiting that these releases ended
  Durations hold;         ///< from acquisition, after a wait, to release
};

/// How often and how long releases from `waker` ended waits from `waiter`.
struct PairRow {
  Index lock = kNone;
  Index waiter = kNone;  ///< stack
  Index waker = kNone;   ///< stack; kNone: no release was seen (timeout, signal)
  uint64_t count = 0;
  uint64_t total_ns = 0;
};

/// An object of pthreads, as the pthread tier saw it: every call.
struct PthreadObject {
  Index process = kNone;
  uint64_t address = 0;
  uint32_t kind = 0;        ///< enum ls_object_kind
  Durations hold;           ///< exclusive, from having it to giving it back
  Durations read_hold;      ///< rwlocks: as a reader
  uint64_t held = 0;        ///< not given back at the end of the capture
  uint64_t held_ns = 0;     ///< ... so far
  uint64_t before = 0;      ///< given back, and acquired before the capture
  uint64_t contended = 0;   ///< holds that began with a sleep
  uint64_t failed = 0;      ///< trylock and timed calls that did not get it
  uint64_t waits = 0;       ///< conditions, barriers, joins, once
  uint64_t signals = 0;
  uint64_t broadcasts = 0;
  uint64_t unheld = 0;      ///< signals and broadcasts without the mutex
  uint64_t nobody = 0;      ///< ... while nobody waited
  uint64_t posts = 0;       ///< semaphores, by threads that had not waited there
  uint64_t taken = 0;       ///< ... waited for and not posted by the same thread
  uint64_t spins = 0;       ///< spin locks that were not free at once
  uint64_t spin_ns = 0;
  /// Of estimates, where probes were there for slices of the time only: standard errors,
  /// relative; 0 if all is counted, or there were too few slices to tell.
  double count_error = 0;   ///< of the holds' count
  double total_error = 0;   ///< ... and of their time in all
  double mean_error = 0;    ///< ... and of the mean hold
  uint64_t mutex = 0;       ///< conditions: address of the one last used with it
  std::string object;       ///< name of the variable, if it is static; may be empty
  uint64_t object_offset = 0;  ///< of the object in it
};

/// Acquisitions of one object from one stack.
struct HoldRow {
  Index object = kNone;
  Index stack = kNone;
  uint64_t count = 0;
  uint64_t total_ns = 0;
};

/// One lock asked for while another was held.
struct OrderRow {
  Index held = kNone;    ///< object
  Index wanted = kNone;  ///< ... of the same process
  Index stack = kNone;   ///< of the first time
  uint64_t count = 0;
  int32_t tid = 0;       ///< ... of the first time
};

/// What holds of a contended lock were made of, as the holder tier saw them. Holds
/// that last are in it up to the end of the capture.
struct HoldSplit {
  uint64_t count = 0;    ///< that ended
  uint64_t held_ns = 0;
  uint64_t runnable_ns = 0;  ///< ready to run, and no CPU for it
  uint64_t blocked_ns = 0;   ///< asleep: in a system call, or a page fault

  uint64_t running_ns() const {
    const uint64_t off = runnable_ns + blocked_ns;
    return held_ns > off ? held_ns - off : 0;
  }
  void add(const HoldSplit& other) {
    count += other.count;
    held_ns += other.held_ns;
    runnable_ns += other.runnable_ns;
    blocked_ns += other.blocked_ns;
  }
};

/// By which tier's eyes a lock was known as contended: one of the two is kNone.
struct SplitRow {
  Index lock = kNone;
  Index object = kNone;
  HoldSplit split;
};

/// What holders did at one stack: time is charged to the lock that the thread got last.
struct ActivityRow {
  Index lock = kNone;    ///< as in SplitRow
  Index object = kNone;
  Index stack = kNone;
  int32_t call = 0;      ///< system call in which it was blocked, or enum ls_holder_call
  uint64_t count = 0;    ///< times that it blocked, or CPU samples
  uint64_t total_ns = 0; ///< estimated, where stacks were sampled
};

/// What was recorded: aggregated, addresses only, no names. Plain data: can be
/// saved and read anywhere.
struct Capture {
  std::string host;
  std::string kernel;
  std::string target;  ///< as asked for, in words
  int64_t start_unix_ns = 0;
  uint64_t duration_ns = 0;
  std::vector<std::string> tiers;
  Quality quality;
  std::vector<Process> processes;
  std::vector<Lock> locks;
  std::vector<Stack> stacks;
  std::vector<WaitRow> waits;
  std::vector<ReleaseRow> releases;
  std::vector<PairRow> pairs;
  std::vector<PthreadObject> objects;
  std::vector<HoldRow> holds;
  std::vector<OrderRow> orders;
  std::vector<SplitRow> splits;
  std::vector<ActivityRow> activities;
};

/// A capture with its stacks named. `frames[i]` belongs to `capture.stacks[i]`,
/// innermost first.
struct SymbolizedCapture {
  Capture capture;
  std::vector<std::vector<Frame>> frames;

  /// Whether there is a stack and it is whole.
  bool whole(Index stack) const { return stack != kNone && capture.stacks[stack].whole(); }
};

}  // namespace lockscope
