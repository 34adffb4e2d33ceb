#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace lockscope {

/// A futex call that may wait.
struct FutexWait {
  uint64_t word = 0;     ///< address waited on; futex_waitv: of its array, see `elements`
  uint32_t op = 0;       ///< enum ls_op
  uint32_t value = 0;    ///< that the word had to have
  uint32_t elements = 0; ///< of futex_waitv's array; else 0
  bool shared = false;   ///< without FUTEX_PRIVATE_FLAG
  bool timed = false;    ///< with a time-out

  bool operator==(const FutexWait&) const = default;
};

/// Reads the arguments of a system call; nothing if it is not one that waits on a
/// futex.
std::optional<FutexWait> decode_futex_wait(int64_t call, const std::array<uint64_t, 6>& args);

/// What the call tells about the word: enum ls_wait_trait, as the kernel programs
/// have it (bpf/waits.bpf.h).
uint32_t wait_traits(const FutexWait& wait);

/// FUTEX_WAITERS and a thread's tid: of a lock that names its owner.
bool is_owned_word(uint32_t word);

/// The system call's name on this machine, "" if it has none.
std::string system_call_name(int64_t call);

}  // namespace lockscope
