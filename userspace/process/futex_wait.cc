#include "process/futex_wait.h"

#include <linux/futex.h>
#include <seccomp.h>
#include <sys/syscall.h>

#include <cstdlib>
#include <memory>

#include "events.h"

namespace lockscope {
namespace {

// Not in the headers of Debian 12's libc.
constexpr int64_t kFutexWaitv = 449;
constexpr int64_t kFutexWait = 455;  // since 6.7

bool waits(uint32_t op) {
  switch (op) {
    case LS_OP_WAIT:
    case LS_OP_WAIT_BITSET:
    case LS_OP_LOCK_PI:
    case LS_OP_LOCK_PI2:
    case LS_OP_WAIT_REQUEUE_PI:
      return true;
  }
  return false;
}

}  // namespace

std::optional<FutexWait> decode_futex_wait(int64_t call, const std::array<uint64_t, 6>& args) {
  FutexWait wait;
  if (call == SYS_futex) {
    // futex(uaddr, op, val, timeout, uaddr2, val3)
    const auto flags = static_cast<uint32_t>(args[1]);
    wait = {.word = args[0],
            .op = flags & ~static_cast<uint32_t>(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME),
            .value = static_cast<uint32_t>(args[2]),
            .shared = !(flags & FUTEX_PRIVATE_FLAG),
            .timed = args[3] != 0};
    if (!waits(wait.op)) return {};
    return wait;
  }
  if (call == kFutexWait) {
    // futex_wait(uaddr, val, mask, flags, timeout, clockid)
    return FutexWait{.word = args[0],
                     .op = LS_OP_WAIT_BITSET,
                     .value = static_cast<uint32_t>(args[1]),
                     .shared = !(args[3] & FUTEX_PRIVATE_FLAG),
                     .timed = args[4] != 0};
  }
  if (call == kFutexWaitv) {
    // futex_waitv(waiters, nr_futexes, flags, timeout, clockid)
    return FutexWait{.word = args[0],
                     .op = LS_OP_WAITV,
                     .elements = static_cast<uint32_t>(args[1]),
                     .timed = args[3] != 0};
  }
  return {};
}

uint32_t wait_traits(const FutexWait& wait) {
  uint32_t traits = wait.timed ? LS_TRAIT_TIMEOUT : 0;
  if (wait.shared) traits |= LS_TRAIT_SHARED;
  switch (wait.op) {
    case LS_OP_WAIT: traits |= LS_TRAIT_PLAIN_WAIT; break;
    case LS_OP_WAIT_BITSET: traits |= LS_TRAIT_BITSET_WAIT; break;
    case LS_OP_WAITV: traits |= LS_TRAIT_WAITV; break;
    case LS_OP_WAIT_REQUEUE_PI: traits |= LS_TRAIT_REQUEUE; break;
    default: return traits | LS_TRAIT_PI;
  }
  switch (wait.value) {
    case 0: return traits | LS_TRAIT_VAL_0;
    case 2: return traits | LS_TRAIT_VAL_2;
    case 3: return traits | LS_TRAIT_VAL_3;
  }
  return traits | (is_owned_word(wait.value) ? LS_TRAIT_VAL_OWNED : LS_TRAIT_VAL_OTHER);
}

bool is_owned_word(uint32_t word) { return (word & FUTEX_WAITERS) && (word & FUTEX_TID_MASK); }

std::string system_call_name(int64_t call) {
  const std::unique_ptr<char, decltype(&std::free)> name(
      seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, static_cast<int>(call)), std::free);
  if (name) return name.get();
  // Newer than the library.
  if (call == kFutexWaitv) return "futex_waitv";
  return call == kFutexWait ? "futex_wait" : "";
}

}  // namespace lockscope
