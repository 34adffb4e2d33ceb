/* Which locks a thread has, of those that it had to wait for, and since when. */
#pragma once

#include "books.bpf.h"
#include "holder_state.bpf.h"

/* Whether a word is FUTEX_WAITERS with an owner's tid (at most 2^22), and no
 * other large number: Rust parks threads on u32::MAX, and counts the readers of
 * its rwlock below two flag bits. */
static __always_inline int is_owned_word(__u32 value)
{
	__u32 tid = value & 0x3fffffff;

	return (value & 0xc0000000) == 0x80000000 && tid && tid <= 1 << 22;
}

/* A thread that goes back to sleep on the same contended word within this was
 * beaten to the lock; later, it may have had it. Only for words where that is
 * in doubt; waking to retry takes a few microseconds. */
#define LS_RETRY_NS 50000

/* Whether a wait while the word had this value is a wait for a lock that the
 * word says is contended, and that can then not be released without a call
 * into the kernel: glibc's low-level lock, Go's and musl's; robust mutexes. */
static __always_inline int is_contended_word(__u32 op, __u32 value)
{
	return (op == LS_OP_WAIT && value == 2) ||
	       ((op == LS_OP_WAIT || op == LS_OP_WAIT_BITSET) && is_owned_word(value));
}

/* As above in all likelihood: Rust's mutex and glibc's timed lock, but also the
 * phase word of glibc's rwlock, whose release may stay in user space. */
static __always_inline int may_be_contended_word(__u32 op, __u32 value)
{
	return op == LS_OP_WAIT_BITSET && value == 2;
}

/* The thread waits for the lock, so it does not hold it. If it had woken from
 * its last wait a while ago, it had it, and released it unseen. */
static __always_inline void forget_hold(struct ls_thread *thread, __u64 lock_id,
					struct ls_lock *lock, __u64 now)
{
	for (int i = 0; i < LS_MAX_HELD; i++) {
		if (thread->held[i].lock != lock_id)
			continue;
		thread->held[i].lock = 0;
		if (ls_mark_holders)
			unmark_holder(lock_id, now, 0);
		if (lock && thread->held[i].kind != LS_HOLD_CERTAIN &&
		    now - thread->held[i].since_ns > LS_RETRY_NS) {
			__sync_fetch_and_add(&lock->refused_holds, 1);
			count(LS_UNMATCHED_HOLDS);
		}
	}
}

/* A thread has a lock for which it had to wait. Slots are told apart by number,
 * not by pointer, of which the verifier would follow every combination. */
static __noinline int begin_hold(struct ls_thread *thread, __u64 lock_id, struct ls_lock *lock,
				 __u32 kind, __u64 now)
{
	__u32 slot = LS_MAX_HELD, doubtful = LS_MAX_HELD, oldest = 0;
	__u64 oldest_ns = ~0ULL;
	struct ls_held *held;

	for (__u32 i = 0; i < LS_MAX_HELD; i++) {
		held = &thread->held[i];
		if (held->lock == lock_id) {
			__sync_fetch_and_add(&lock->refused_holds, 1);
			count(LS_UNMATCHED_HOLDS);
			slot = i;
			break;
		}
		if (!held->lock)
			slot = i;
		else if (held->kind != LS_HOLD_CERTAIN)
			doubtful = i;
		if (held->since_ns < oldest_ns) {
			oldest_ns = held->since_ns;
			oldest = i;
		}
	}
	/* A condition that was waited on looks like a lock that is never
	 * released: such make room first. Then whatever is oldest: more likely a
	 * lock with rules of its own than one of so many that are held. */
	if (slot == LS_MAX_HELD)
		slot = doubtful;
	if (slot == LS_MAX_HELD) {
		slot = oldest;
		count(LS_UNMATCHED_HOLDS);
	}
	asm volatile("" : "+r"(slot)); /* or the mask may go */
	held = &thread->held[slot & (LS_MAX_HELD - 1)];
	if (ls_mark_holders) {
		if (held->lock)
			unmark_holder(held->lock, now, 0);
		if (kind == LS_HOLD_CERTAIN)
			mark_holder(thread->process, lock_id, LS_MARK_LOCK, now);
	}
	held->lock = lock_id;
	held->since_ns = now;
	held->word = thread->op == LS_OP_WAIT_REQUEUE_PI ? 0 : thread->word;
	held->acquisition = lock->acquisitions;
	held->kind = kind;
	return 0;
}

static __always_inline __u32 hold_kind(__u32 op, __u32 value, __u64 word, __u32 traits)
{
	/* Waited on while 2 and nothing else, and released by those who wait: no
	 * rwlock's word, so a mutex's (Rust's, or glibc's with a timeout). */
	const __u32 only_2 = LS_TRAIT_VAL_2 | LS_TRAIT_SELF_RELEASE;
	const __u32 values = LS_TRAIT_VAL_0 | LS_TRAIT_VAL_3 | LS_TRAIT_VAL_OTHER | only_2;

	if (op == LS_OP_LOCK_PI || op == LS_OP_LOCK_PI2 || is_contended_word(op, value))
		return LS_HOLD_CERTAIN;
	/* glibc's rwlock: __wrphase_futex at offset 8 and __writers_futex at 12 of
	 * an 8-aligned object; a reader waits on the former for 3, a writer on the
	 * former for 2 or on the latter for 3 (nptl/pthread_rwlock_common.c). A
	 * reader's release can't be told: several share the lock. */
	if (op == LS_OP_WAIT_BITSET && value == 3)
		return word & 4 ? LS_HOLD_RWLOCK : 0;
	if (op == LS_OP_WAIT_BITSET && value == 2)
		return (traits & values) == only_2 ? LS_HOLD_CERTAIN : LS_HOLD_RWLOCK;
	return LS_HOLD_LIKELY;
}

/* Whether a hold that is released now, with the kernel's help, can have lasted
 * since it began. A release with nobody waiting stays in user space: if the
 * lock was without waiters for more than a quarter of the time, the thread may
 * have released and taken it again unseen. */
static __always_inline int hold_is_credible(const struct ls_held *held, const struct ls_lock *lock,
					    __u64 lock_id, __u64 now)
{
	__u64 unwatched = 0;

	if (held->kind == LS_HOLD_CERTAIN)
		return 1;
	if (held->lock == lock_id && lock->acquisitions != held->acquisition)
		return 0;
	if (lock->contended_since_ns > held->since_ns)
		unwatched = lock->contended_since_ns - held->since_ns;
	return unwatched <= (now - held->since_ns) / 4;
}

/* Ends the hold that a release of `lock_id` ends, and returns its length, 0 if
 * none is known. */
static __always_inline __u64 end_hold(struct ls_thread *thread, struct ls_lock *lock,
				      __u64 lock_id, __u64 word, __u64 now)
{
	for (int i = 0; i < LS_MAX_HELD; i++) {
		struct ls_held *held = &thread->held[i];
		int sibling = held->kind == LS_HOLD_RWLOCK && (held->word ^ word) == 4;

		if (!held->lock || (held->lock != lock_id && !sibling))
			continue;
		if (ls_mark_holders && held->kind == LS_HOLD_CERTAIN)
			unmark_holder(held->lock, now, 1);
		held->lock = 0;
		if (!hold_is_credible(held, lock, lock_id, now)) {
			__sync_fetch_and_add(&lock->refused_holds, 1);
			count(LS_UNMATCHED_HOLDS);
			return 0;
		}
		return now - held->since_ns;
	}
	return 0;
}
