#pragma once

#include <map>
#include <string>
#include <vector>

#include "capture/census.h"
#include "diagnose/thread_wait.h"
#include "diagnose/wait_cycles.h"

namespace lockscope {

/// Threads of one process with the same stack, in the same state, that wait for
/// the same kind of thing.
struct ThreadGroup {
  std::vector<Index> threads;
  /// The same threads, by the object that they wait for, most first; empty if
  /// they wait for none that is known.
  std::vector<std::vector<Index>> by_object;
};

/// How many threads of a process do what.
struct ThreadCounts {
  size_t waiting_for_locks = 0;
  size_t asleep = 0;   ///< all others that sleep
  size_t running = 0;  ///< or could, if they got a CPU
  size_t other = 0;    ///< stopped, ended
};

/// A census as a programmer reads it.
struct ThreadView {
  SymbolizedCensus census;
  std::vector<ThreadWait> waits;     ///< one for each thread
  std::vector<ThreadCounts> counts;  ///< one for each process
  std::vector<WaitCycle> cycles;
  /// By process; in each, those that wait for locks first, then those that run,
  /// then the largest.
  std::vector<ThreadGroup> groups;
  size_t whole_stacks = 0;
  std::map<std::string, size_t> incomplete_stacks;  ///< threads, by why_incomplete()

  const std::vector<Frame>& frames(Index thread) const;
  /// Why a thread's stack is not whole for sure, in words; nullptr if it is.
  const char* why_incomplete(Index thread) const;
};

/// Pure.
ThreadView view_threads(SymbolizedCensus census);

}  // namespace lockscope
