// The futex system calls as they are, and a lock made of them that counts its calls.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>

#include "workload.h"

// Numbers and structs that Debian 12's headers may not have yet (include/uapi/linux/futex.h and
// asm/unistd_64.h of Linux 6.7).
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#define LS_SYS_futex_wake 454
#define LS_SYS_futex_wait 455
#define LS_SYS_futex_requeue 456
#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif

namespace workload {

constexpr unsigned kFutex2U32Private = 0x02 | 0x80;  // FUTEX2_SIZE_U32 | FUTEX2_PRIVATE

struct FutexWaitv {  // struct futex_waitv
  uint64_t value;
  uint64_t address;
  uint32_t flags;
  uint32_t reserved = 0;
};
static_assert(sizeof(FutexWaitv) == 24);

using Word = std::atomic<uint32_t>;

// Every call returns the kernel's result, or -errno.
inline long result(long value) { return value == -1 ? -errno : value; }

inline long futex_wait(Word& word, uint32_t expected, const timespec* relative = nullptr) {
  return result(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, relative));
}
inline long futex_wake(Word& word, int count) {
  return result(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count));
}
inline long futex_wake_shared(Word& word, int count) {
  return result(syscall(SYS_futex, &word, FUTEX_WAKE, count));
}
// The deadline is absolute.
inline long futex_wait_bitset(Word& word, uint32_t expected, const timespec* deadline,
                              bool realtime, uint32_t bits) {
  int operation = FUTEX_WAIT_BITSET_PRIVATE | (realtime ? FUTEX_CLOCK_REALTIME : 0);
  return result(syscall(SYS_futex, &word, operation, expected, deadline, nullptr, bits));
}
inline long futex_wake_bitset(Word& word, int count, uint32_t bits) {
  return result(syscall(SYS_futex, &word, FUTEX_WAKE_BITSET_PRIVATE, count, nullptr, nullptr, bits));
}
inline long futex_cmp_requeue(Word& from, int wake, int requeue, Word& to, uint32_t expected) {
  return result(
      syscall(SYS_futex, &from, FUTEX_CMP_REQUEUE_PRIVATE, wake, long(requeue), &to, expected));
}
inline long futex_wake_op(Word& wake, int count, Word& change, int count_changed, int operation) {
  return result(
      syscall(SYS_futex, &wake, FUTEX_WAKE_OP_PRIVATE, count, long(count_changed), &change,
              operation));
}
inline long futex_lock_pi(Word& word) {
  return result(syscall(SYS_futex, &word, FUTEX_LOCK_PI_PRIVATE, 0, nullptr));
}
inline long futex_unlock_pi(Word& word) {
  return result(syscall(SYS_futex, &word, FUTEX_UNLOCK_PI_PRIVATE, 0));
}
inline long futex_wait_requeue_pi(Word& word, uint32_t expected, Word& to) {
  return result(
      syscall(SYS_futex, &word, FUTEX_WAIT_REQUEUE_PI_PRIVATE, expected, nullptr, &to));
}
inline long futex_cmp_requeue_pi(Word& from, int requeue, Word& to, uint32_t expected) {
  return result(
      syscall(SYS_futex, &from, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, long(requeue), &to, expected));
}
inline long futex_wait_any(FutexWaitv* waiters, unsigned count) {
  return result(syscall(SYS_futex_waitv, waiters, count, 0, nullptr, 0));
}
inline long futex2_wait(Word& word, uint32_t expected) {
  return result(syscall(LS_SYS_futex_wait, &word, uint64_t(expected), uint64_t(0xffffffff),
                        kFutex2U32Private, nullptr, 0));
}
inline long futex2_wake(Word& word, int count) {
  return result(
      syscall(LS_SYS_futex_wake, &word, uint64_t(0xffffffff), count, kFutex2U32Private));
}
inline long futex2_requeue(Word& from, int wake, int requeue, Word& to, uint32_t expected) {
  FutexWaitv pair[2] = {{expected, uint64_t(&from), kFutex2U32Private},
                        {0, uint64_t(&to), kFutex2U32Private}};
  return result(syscall(LS_SYS_futex_requeue, pair, 0, wake, requeue));
}

// What one thread asked of the kernel, and what came back.
struct FutexCalls {
  uint64_t waits = 0, woken_up = 0, mismatched = 0, interrupted = 0, timed_out = 0;
  uint64_t wakes = 0, woke = 0;

  long waited(long outcome) {
    ++waits;
    if (outcome == 0) ++woken_up;
    if (outcome == -EAGAIN) ++mismatched;
    if (outcome == -EINTR) ++interrupted;
    if (outcome == -ETIMEDOUT) ++timed_out;
    return outcome;
  }
  void woken(long outcome) {
    ++wakes;
    if (outcome > 0) woke += uint64_t(outcome);
  }
  void add(const FutexCalls& other) {
    waits += other.waits, woken_up += other.woken_up, mismatched += other.mismatched;
    interrupted += other.interrupted, timed_out += other.timed_out;
    wakes += other.wakes, woke += other.woke;
  }
  void report(Report& report) const {
    report.number("futex_calls", waits + wakes)
        .number("futex_waits", waits)
        .number("futex_woken_up", woken_up)
        .number("futex_mismatched", mismatched)
        .number("futex_interrupted", interrupted)
        .number("futex_timed_out", timed_out)
        .number("futex_wakes", wakes)
        .number("futex_woke", woke);
  }
};

// Drepper's third mutex ("Futexes Are Tricky"): 0 free, 1 held, 2 held and perhaps waited for. Like
// glibc's: whoever slept holds it as 2, and so releases it through the kernel.
class RawLock {
 public:
  bool try_lock() {
    uint32_t free = 0;
    return word_.compare_exchange_strong(free, 1, std::memory_order_acquire);
  }
  template <typename Wait>
  void lock(Wait&& wait) {
    while (word_.exchange(2, std::memory_order_acquire) != 0) wait(word_, 2);
  }
  // The same, while `wait` returns true; false if it did not and the lock was not got.
  template <typename Wait>
  bool lock_while(Wait&& wait) {
    while (word_.exchange(2, std::memory_order_acquire) != 0)
      if (!wait(word_, 2)) return false;
    return true;
  }
  // True if somebody may wait: then the caller must wake one.
  bool release() { return word_.exchange(0, std::memory_order_release) == 2; }
  void mark_contended() { word_.store(2, std::memory_order_relaxed); }
  Word& word() { return word_; }

 private:
  alignas(64) Word word_{0};
};

}  // namespace workload
