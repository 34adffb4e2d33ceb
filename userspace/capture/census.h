#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "capture/capture.h"
#include "process/futex_wait.h"

namespace lockscope {

/// Values are names in JSON: append only.
enum class ThreadState {
  Running = 0,    ///< on a CPU
  Runnable = 1,   ///< waits for a CPU
  Sleeping = 2,   ///< until something comes, or a signal
  DiskSleep = 3,  ///< until something comes, signals or not: I/O, mostly
  Stopped = 4,    ///< by a signal, or by a debugger
  Ended = 5,      ///< but not gone: the first thread, with others still there
  Other = 6,
};

/// How a thread's stack was had.
enum class StackTaken {
  Still = 0,      ///< it did not run while its stack was read
  LastEntry = 1,  ///< it ran: from the registers of its last entry into the kernel
  Moved = 2,      ///< it slept, but ran while its stack was read, whenever that was tried
  None = 3,       ///< it has none: ended, or a worker of the kernel
  Is32Bit = 4,    ///< not read
};

/// Memory around a futex word, as 32-bit words, while its waiter slept.
struct WordsAround {
  static constexpr int kBefore = 3, kAfter = 8;  ///< words before and from the futex word on
  std::array<uint32_t, kBefore + kAfter> words{};
  bool known = false;  ///< could be read

  /// The 32-bit word at `bytes` from the futex word.
  std::optional<uint32_t> at(int bytes) const {
    const int index = bytes / 4 + kBefore;
    if (!known || bytes % 4 != 0 || index < 0 || index >= kBefore + kAfter) return {};
    return words[static_cast<size_t>(index)];
  }
};

/// One thread at the moment of the census.
struct CensusThread {
  Index process = kNone;
  int32_t tid = 0;
  int32_t inner_tid = 0;  ///< in the process's own PID namespace
  std::string comm;
  ThreadState state = ThreadState::Other;
  int64_t call = -1;  ///< the system call that it sleeps in; -1: none
  std::string call_name;
  uint64_t asleep_ns = 0;  ///< has not run for so long, at least; 0: not known
  uint64_t ending = 0;     ///< futex that is woken when it ends
  Index stack = kNone;     ///< of capture.stacks
  StackTaken taken = StackTaken::None;
  /// Stood still while the last look was taken at all threads: what is said of
  /// such threads was true of all of them at once.
  bool still = false;
  std::optional<FutexWait> wait;
  Index lock = kNone;  ///< the word that it waits on, of capture.locks
  WordsAround around;
};

/// All threads of some processes at one moment. In the capture are its
/// processes, its stacks (each once), and the futex words that are waited on.
struct Census {
  Capture capture;
  std::vector<CensusThread> threads;  ///< by process and tid
  uint64_t looks = 0;                 ///< at all threads, until they were found unchanged
};

struct SymbolizedCensus {
  SymbolizedCapture named;
  std::vector<CensusThread> threads;
  uint64_t looks = 0;
};

}  // namespace lockscope
