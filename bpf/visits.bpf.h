/* Waits at one lock that are in the books of another until they are over:
 * requeued ones, and futex_waitv beyond its first element. */
#pragma once

#include "futex_call.bpf.h"
#include "sleeps.bpf.h"

/* Marks the further elements of a futex_waitv call as waited on (`by` 1) or no
 * longer (-1). Their memory is the caller's to change in between; at worst a
 * lock keeps or lacks a visitor, which decides about a stack, not about time. */
static __noinline int visit_elements(__u64 array, __u32 elements, __u64 process, int by)
{
	for (__u32 i = 1; i < LS_MAX_WAITV; i++) {
		struct futex_waitv element = {};
		struct ls_lock_key key = {};
		struct ls_lock *lock;
		__u64 id;

		if (i >= elements ||
		    bpf_probe_read_user(&element, sizeof(element),
					(void *)(array + i * sizeof(element))))
			break;
		id = find_lock_key(0, process, element.uaddr,
				   !(element.flags & 128), &key);
		lock = find_or_make_lock(id, &key, process, element.uaddr);
		if (lock)
			__sync_fetch_and_add(&lock->visitors, by);
	}
	return 0;
}

/* Enters a wait that is over at last, and charges it to the release that ended
 * it. */
static __noinline int settle_visit(struct ls_thread *thread, struct ls_lock *lock,
				   const struct ls_sleep *sleep)
{
	struct ls_waker waker = {};
	__u64 claimed;

	book_begin(lock, sleep->from_ns);
	book_end(lock, sleep->until_ns);
	find_waker(lock, sleep->from_ns, &waker);
	if (waker.random) {
		claimed = claim_area(sleep->lock, lock, sleep->until_ns);
		charge(sleep->lock, waker.stack, claimed, waker.probability);
	}
	return add_sleep(thread, lock, sleep);
}

/* If the waiter was moved to another futex while it slept, ends its sleep here
 * and returns that lock, with what it slept there in `sleep`; otherwise NULL. Who
 * was moved and who was woken the kernel does not say; it wakes first those that
 * it would wake anyway, so the first to leave after a requeue count as woken by
 * it. */
static __noinline struct ls_lock *leave_requeued(struct ls_thread *thread, struct ls_lock *lock,
						 struct ls_sleep *sleep)
{
	__u64 moved_ns = lock->requeue_ns, now = sleep->until_ns;
	__u64 second_id = lock->requeued_to;
	__s64 result = sleep->result;
	struct ls_lock *second;

	if (moved_ns <= thread->since_ns || !second_id)
		return 0;
	if (*(volatile __s32 *)&lock->requeue_woken > 0) {
		__sync_fetch_and_add(&lock->requeue_woken, -1);
		return 0;
	}
	if (*(volatile __s32 *)&lock->requeue_moved <= 0)
		return 0;
	second = bpf_map_lookup_elem(&locks, &second_id);
	if (!second)
		return 0;
	__sync_fetch_and_add(&lock->requeue_moved, -1);
	__sync_fetch_and_add(&second->visitors, -1);
	book_end(lock, moved_ns);
	/* The requeue was a release of the first lock; it is the last one seen. */
	sleep->until_ns = moved_ns;
	sleep->before_ns = 0;
	sleep->result = 0;
	add_sleep(thread, lock, sleep);
	sleep->lock = second_id;
	sleep->from_ns = moved_ns;
	sleep->until_ns = now;
	sleep->result = result;
	return second;
}

/* A futex_waitv call ended with another element than the first, in whose books it
 * was. Returns that element's lock, NULL if it can't be told. */
static __noinline struct ls_lock *leave_waitv(struct ls_thread *thread, struct ls_lock *first,
					      struct ls_sleep *sleep)
{
	struct futex_waitv element = {};
	struct ls_lock_key key = {};
	struct ls_lock *lock;

	if (bpf_probe_read_user(&element, sizeof(element),
				(void *)(thread->second_lock + sleep->result * sizeof(element))))
		return 0;
	sleep->lock = find_lock_key(0, thread->process, element.uaddr, !(element.flags & 128),
				    &key);
	lock = find_or_make_lock(sleep->lock, &key, thread->process, element.uaddr);
	if (!lock)
		return 0;
	book_end(first, thread->since_ns);
	set_bits_u32(&lock->traits, LS_TRAIT_WAITV);
	sleep->before_ns = 0;
	sleep->result = 0;
	return lock;
}
