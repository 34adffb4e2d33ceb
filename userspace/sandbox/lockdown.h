#pragma once

#include <cstdint>

#include "base/result.h"

namespace lockscope {

struct SandboxLimits {
  /// Memory of its own that the process may take; files mapped for reading come
  /// on top. Symbols of the largest known program (chrome, unstripped) take
  /// 0.3 GB while they are read.
  uint64_t memory_bytes = 1 << 30;
};

/// Gives up for good, for this process, everything but computing, reading
/// descriptors that it has or is sent, and answering: no privileges, no paths,
/// no new descriptors of its own making, no executable memory, no signals to
/// others. A system call beyond that ends the process (SIGSYS). To be called
/// with one thread. Fails if the kernel has no seccomp filters; the process is
/// then in between and should end.
Status lock_down(const SandboxLimits& limits);

}  // namespace lockscope
