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
 *  - sums and rows are only ever added to, atomically.
 * So blame plus what is not yet claimed equals the waiting, exactly, at any
 * instant; tests/e2e/books_test.py hammers one lock on all CPUs to show it. */
#pragma once

#include "lock_key.bpf.h"
#include "stacks.bpf.h"

/* Waits on a lock beyond this are not entered: N would spill into W. */
#define LS_MAX_WAITERS (LS_BOOK_COUNT_MASK - 1024)

static const struct ls_lock zero_lock = {};
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

static __always_inline struct ls_wait_row *wait_row(__u64 lock, __u64 stack)
{
	struct ls_row_key key = { .lock = lock, .stack = stack };
	struct ls_wait_row *row = find_or_make(&waits, &key, &zero_wait_row);

	if (!row)
		count(LS_LOST_WAIT_ROWS_FULL);
	return row;
}

static __always_inline struct ls_release_row *release_row(__u64 lock, __u64 stack)
{
	struct ls_row_key key = { .lock = lock, .stack = stack };
	struct ls_release_row *row = find_or_make(&releases, &key, &zero_release_row);

	if (!row)
		count(LS_LOST_RELEASE_ROWS_FULL);
	return row;
}

static __always_inline struct ls_pair_row *pair_row(__u64 lock, __u64 waiter, __u64 waker)
{
	struct ls_pair_key key = { .lock = lock, .waiter = waiter, .waker = waker };
	struct ls_pair_row *row = find_or_make(&pairs, &key, &zero_pair_row);

	if (!row)
		count(LS_LOST_PAIR_ROWS_FULL);
	return row;
}

/* Charges waiting to a release whose stack was taken with this probability; 0:
 * it was not, and the waiting is in the lock's sum alone. */
static __always_inline void charge(__u64 lock, __u64 stack, __u64 ns, __u32 probability)
{
	struct ls_release_row *row;

	if (!ns || !probability)
		return;
	row = release_row(lock, stack);
	if (!row)
		return;
	__sync_fetch_and_add(&row->blame_ns, ns);
	__sync_fetch_and_add(&row->weight_blame_ns, ls_weigh(ns, ls_inverse_of(probability)));
}

static __noinline struct ls_lock *make_lock(__u64 id, const struct ls_lock_key *key,
					    __u64 process, __u64 word)
{
	long made = bpf_map_update_elem(&locks, &id, &zero_lock, BPF_NOEXIST);
	struct ls_lock *lock = bpf_map_lookup_elem(&locks, &id);

	if (lock && made == 0) {
		lock->key = *key;
		lock->address = word;
		lock->process = process;
	}
	return lock;
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
static __always_inline void add_wait(struct ls_wait_sums *sums, __u64 ns, __u64 before_ns,
				     __s64 result)
{
	if (before_ns)
		__sync_fetch_and_add(&sums->hist[hist_slot(before_ns)], -1);
	__sync_fetch_and_add(&sums->hist[hist_slot(before_ns + ns)], 1);
	__sync_fetch_and_add(&sums->total_ns, ns);
	if (result != -11 /* EAGAIN: the word had changed */)
		__sync_fetch_and_add(&sums->sleeps, 1);
	if (result == -110 /* ETIMEDOUT */)
		__sync_fetch_and_add(&sums->timeouts, 1);
	raise_u64(&sums->max_ns, before_ns + ns);
}

static __always_inline void add_release(struct ls_release_sums *sums, __u64 held_ns)
{
	__sync_fetch_and_add(&sums->count, 1);
	if (!held_ns)
		return;
	__sync_fetch_and_add(&sums->hold_total_ns, held_ns);
	__sync_fetch_and_add(&sums->hold_hist[hist_slot(held_ns)], 1);
	raise_u64(&sums->hold_max_ns, held_ns);
}
