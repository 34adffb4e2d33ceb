#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>

#include "unwind.h"
#include "unwind/unwind_memory.h"

namespace lockscope {

/// Copies bytes of the walked thread's memory; false if they can't be read.
using MemoryReader = std::function<bool(void* to, size_t bytes, uint64_t address)>;

/// Reads another process's memory with process_vm_readv.
MemoryReader process_memory(pid_t pid);

/// The kernel's walker in user space: for threads that stand still (blocked,
/// stopped), and for tests. Same tables, same code, same marks on the result.
class UserWalker {
 public:
  explicit UserWalker(UnwindMemory& memory) : memory_(memory) {}

  /// The stack of a thread of process `tgid` with these registers. Walks by
  /// frame pointer, and says so, if the process has not been added.
  ls_frames walk(pid_t tgid, const ls_user_regs& regs, const MemoryReader& read);

 private:
  UnwindMemory& memory_;
};

}  // namespace lockscope
