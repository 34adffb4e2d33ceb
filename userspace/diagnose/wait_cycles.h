#pragma once

#include <vector>

#include "capture/capture.h"

namespace lockscope {

/// Threads that wait for each other in a ring: none of them can ever go on.
struct WaitCycle {
  /// Each waits for the next, the last for the first; a thread that waits for
  /// itself is a cycle of one. Begins with the lowest index.
  std::vector<Index> threads;
  /// Those that wait for one of them, or for one that does, and so on.
  std::vector<Index> behind;
};

/// All cycles, by their first thread. `waits_for[i]` is the thread that thread i
/// waits for, kNone if it waits for none. Pure; linear.
std::vector<WaitCycle> find_cycles(const std::vector<Index>& waits_for);

}  // namespace lockscope
