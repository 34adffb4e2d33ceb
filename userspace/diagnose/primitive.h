#pragma once

#include <cstdint>
#include <vector>

#include "symbolize/frame.h"

namespace lockscope {

/// What a futex is part of. Numbered: captures and JSON outlive the program.
enum class Primitive {
  Unknown = 0,  ///< a futex that nothing names
  Mutex = 1,
  Rwlock = 2,
  Cond = 3,
  Sem = 4,
  Barrier = 5,
  Join = 6,
  Once = 7,
  Park = 8,         ///< a thread parked by its runtime: Go's Ms, Java, Rust's park
  RuntimeLock = 9,  ///< a lock inside a library or runtime: malloc, stdio, Go's
  Latch = 10,       ///< std::latch, std::atomic::wait and their kin
  Spin = 11,        ///< pthread_spin_lock: waited for without sleeping
};

/// What an object of pthreads is, enum ls_object_kind.
Primitive primitive_of_object(uint32_t kind);

/// The JSON name: "mutex", "rwlock", ..., "futex" for Unknown.
const char* to_string(Primitive primitive);

/// What a wait is for, from the functions on its stack (innermost first) and,
/// where no symbol tells, the arguments of the calls (enum ls_wait_trait).
Primitive classify_wait(const std::vector<Frame>& frames, uint32_t traits);

/// Whether waiting on it means waiting for something that another thread
/// holds; otherwise it is waiting for work, time or a thread's end.
/// Semaphores and unnamed futexes are locks if it is mostly threads that wait on
/// them who also release them: `self_share` of the releases to a waiter, 0..1.
bool is_lock_wait(Primitive primitive, double self_share);

/// Bytes from the start of glibc's object to the futex word at `address`, as
/// far as primitive, alignment and the values waited on tell (nptl, x86-64,
/// since 2.25): the words of one condition variable or rwlock then meet at one
/// address.
uint64_t word_offset(Primitive primitive, uint64_t address, uint32_t traits);

/// Whether a frame is in the C or C++ runtime library.
bool is_system_library(const Frame& frame);

/// Whether a frame belongs to the implementation of locks rather than to the
/// program: what a reader of stacks wants to skip.
bool is_lock_internals(const Frame& frame);

}  // namespace lockscope
