/* The books: who waits on which lock, since when, and to whom it is charged.
 *
 * Correct between CPUs without a lock (bpf_spin_lock is refused to
 * tracepoint programs):
 *  - a lock's waiters and their time are one word, changed by single atomic
 *    adds (events.h, LS_BOOK_COUNT_BITS), so every reader sees a consistent
 *    area;
 *  - a release claims the area since the last claim by compare-and-swap on
 *    `charged`, which only grows: each tick of waiting is claimed once. One
 *    that keeps losing the race leaves the area to the next release.
 *    Before 5.12 there is no compare-and-swap: making an entry in a hash table
 *    (BPF_NOEXIST) serves as a try-lock, and whoever doesn't get it leaves the
 *    area to the next release as well;
 *  - rows are only ever added to, atomically.
 * So blame plus what is not yet claimed equals the waiting, exactly, at any
 * instant; tests/e2e/books_test.py hammers one lock on all CPUs to show it. */
#pragma once

#include "lock_key.bpf.h"
#include "stacks.bpf.h"

/* Waits on a lock beyond this are not entered: N would spill into W. */
#define LS_MAX_WAITERS (LS_BOOK_COUNT_MASK - 1024)

static const struct ls_wait_row zero_wait_row = {};
static const struct ls_release_row zero_release_row = {};
static const struct ls_pair_row zero_pair_row = {};

static __always_inline __u32 book_waiters(__u64 book)
{
	return book & LS_BOOK_COUNT_MASK;
}

static __always_inline void book_begin(struct ls_lock *lock, __u64 at_ns)
{
	__u64 seen = *(volatile __u64 *)&lock->book;
	__u32 waiters = book_waiters(seen) + 1;

	if (waiters == 1)
		lock->contended_since_ns = at_ns;
	if (lock->max_waiters < waiters)
		lock->max_waiters = waiters;
	__sync_fetch_and_add(&lock->book,
			     1 - (at_ns >> LS_TICK_SHIFT << LS_BOOK_COUNT_BITS));
}

static __always_inline void book_end(struct ls_lock *lock, __u64 at_ns)
{
	__sync_fetch_and_add(&lock->book,
			     (at_ns >> LS_TICK_SHIFT << LS_BOOK_COUNT_BITS) - 1);
}

/* All waiting on the lock up to `at_ns`, in ticks modulo 2^48. */
static __always_inline __u64 book_area(__u64 book, __u64 at_ns)
{
	__u64 area = (book >> LS_BOOK_COUNT_BITS) +
		     book_waiters(book) * (at_ns >> LS_TICK_SHIFT);

	return area & ((1ULL << LS_AREA_BITS) - 1);
}

/* How far `area` is ahead of `charged`, 0 if it is behind: another CPU's
 * later claim came first. */
static __always_inline __u64 area_ahead(__u64 area, __u64 charged)
{
	__u64 ahead = (area - charged) & ((1ULL << LS_AREA_BITS) - 1);

	return ahead >> (LS_AREA_BITS - 1) ? 0 : ahead;
}

#if LS_MODERN

static __always_inline __u64 claim_area(__u64 lock_id, struct ls_lock *lock, __u64 at_ns)
{
	for (int attempt = 0; attempt < 8; attempt++) {
		__u64 charged = *(volatile __u64 *)&lock->charged;
		__u64 area = book_area(*(volatile __u64 *)&lock->book, at_ns);
		__u64 ahead = area_ahead(area, charged);

		if (!ahead)
			return 0;
		if (__sync_val_compare_and_swap(&lock->charged, charged, area) == charged)
			return ahead << LS_TICK_SHIFT;
	}
	count(LS_LOST_CHARGE_CONTENDED);
	return 0;
}

#else

LS_HASH(claims, __u64, __u8, 1024);

static __always_inline __u64 claim_area(__u64 lock_id, struct ls_lock *lock, __u64 at_ns)
{
	__u8 taken = 1;
	__u64 area, ahead;

	if (bpf_map_update_elem(&claims, &lock_id, &taken, BPF_NOEXIST) != 0) {
		count(LS_LOST_CHARGE_CONTENDED);
		return 0;
	}
	area = book_area(*(volatile __u64 *)&lock->book, at_ns);
	ahead = area_ahead(area, *(volatile __u64 *)&lock->charged);
	if (ahead)
		*(volatile __u64 *)&lock->charged = area;
	bpf_map_delete_elem(&claims, &lock_id);
	return ahead << LS_TICK_SHIFT;
}

#endif

/* Rows that don't fit lose their stack, not their time: they are kept under
 * stack 0 of the lock, and at the last under lock 0, which user space makes
 * beforehand. */
static __always_inline struct ls_wait_row *wait_row(__u64 lock, __u64 stack)
{
	struct ls_wait_key key = { .lock = lock, .stack = stack };
	struct ls_wait_row *row = find_or_make(&waits, &key, &zero_wait_row);

	if (row)
		return row;
	count(LS_LOST_WAIT_ROWS_FULL);
	key.stack = 0;
	row = find_or_make(&waits, &key, &zero_wait_row);
	if (row)
		return row;
	key.lock = 0;
	return bpf_map_lookup_elem(&waits, &key);
}

static __always_inline struct ls_release_row *release_row(__u64 lock, __u64 stack)
{
	struct ls_wait_key key = { .lock = lock, .stack = stack };
	struct ls_release_row *row = find_or_make(&releases, &key, &zero_release_row);

	if (row)
		return row;
	count(LS_LOST_RELEASE_ROWS_FULL);
	key.stack = 0;
	row = find_or_make(&releases, &key, &zero_release_row);
	if (row)
		return row;
	key.lock = 0;
	return bpf_map_lookup_elem(&releases, &key);
}

static __always_inline struct ls_pair_row *pair_row(__u64 lock, __u64 waiter, __u64 waker)
{
	struct ls_pair_key key = { .lock = lock, .waiter = waiter, .waker = waker };
	struct ls_pair_row *row = find_or_make(&pairs, &key, &zero_pair_row);

	if (!row)
		count(LS_LOST_PAIR_ROWS_FULL);
	return row;
}

static __always_inline void add_pair(struct ls_pair_row *row, __u64 ns)
{
	if (!row)
		return;
	__sync_fetch_and_add(&row->count, 1);
	__sync_fetch_and_add(&row->total_ns, ns);
}

static __noinline struct ls_lock *make_lock(__u64 id, const struct ls_lock_key *key,
					    __u64 process, __u64 word)
{
	struct ls_lock fresh = {};

	fresh.key = *key;
	fresh.address = word;
	fresh.process = process;
	bpf_map_update_elem(&locks, &id, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&locks, &id);
}

static __always_inline struct ls_lock *find_or_make_lock(__u64 id,
							 const struct ls_lock_key *key,
							 __u64 process, __u64 word)
{
	struct ls_lock *lock = bpf_map_lookup_elem(&locks, &id);

	return lock ? lock : make_lock(id, key, process, word);
}

/* Enters the end of a wait, or of one more sleep of it: `ns` is what this
 * sleep (and the time awake before it) adds, `before_ns` what the wait had
 * come to already. */
static __always_inline void add_wait(struct ls_wait_row *row, __u64 ns, __u64 before_ns,
				     __s64 result)
{
	if (!row)
		return;
	if (before_ns)
		__sync_fetch_and_add(&row->hist[hist_slot(before_ns)], -1);
	else
		__sync_fetch_and_add(&row->count, 1);
	__sync_fetch_and_add(&row->hist[hist_slot(before_ns + ns)], 1);
	__sync_fetch_and_add(&row->total_ns, ns);
	if (result != -11 /* EAGAIN: the word had changed */)
		__sync_fetch_and_add(&row->sleeps, 1);
	if (result == -110 /* ETIMEDOUT */)
		__sync_fetch_and_add(&row->timeouts, 1);
	raise_u64(&row->max_ns, before_ns + ns);
}

static __always_inline void add_hold(struct ls_release_row *row, __u64 ns)
{
	__sync_fetch_and_add(&row->hold_count, 1);
	__sync_fetch_and_add(&row->hold_total_ns, ns);
	__sync_fetch_and_add(&row->hold_hist[hist_slot(ns)], 1);
	raise_u64(&row->hold_max_ns, ns);
}
