/* Threads that hold a contended lock: marked as such by the tiers that see them
 * get it, on the CPU where that happens. The scheduler's side is holder.bpf.c. */
#pragma once

#include "holder_tier.h"
#include "maps.bpf.h"

/* Made as large as LS_HOLDERS and LS_SPLITS only if the tier is wanted
 * (holder_probe.cc). */
LS_HASH(holders, __u32, struct ls_holder, 1);
LS_HASH(splits, struct ls_split_key, struct ls_split, 1);

/* While the scheduler is watched. */
volatile __u32 ls_mark_holders = 0;

static const struct ls_holder zero_holder = {};
static const struct ls_split zero_split = {};

static __always_inline struct ls_mark *mark_of(struct ls_holder *holder, __u32 slot)
{
	asm volatile("" : "+r"(slot)); /* or the mask may go */
	return &holder->marks[slot & (LS_MAX_MARKS - 1)];
}

/* Takes the thread's mark for a lock away; of what it was, `mark` tells. */
static __always_inline int take_mark(struct ls_holder *holder, __u64 lock, struct ls_mark *mark)
{
	int found = 0;

	for (int i = 0; i < LS_MAX_MARKS; i++) {
		if (i >= holder->n)
			break;
		if (found) {
			holder->marks[i - 1] = holder->marks[i];
		} else if (holder->marks[i].lock == lock) {
			*mark = holder->marks[i];
			found = 1;
		}
	}
	if (found)
		holder->n--;
	return found;
}

/* The current thread has a contended lock. Global, as those below: verified once. */
__noinline int mark_holder(__u64 process, __u64 lock, __u32 kind, __u64 now)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct ls_holder *holder = find_or_make(&holders, &tid, &zero_holder);
	struct ls_mark ignored, *mark;

	if (!holder) {
		count(LS_LOST_HOLDERS_FULL);
		return 0;
	}
	if (holder->process != process) {
		holder->process = process;
		holder->n = 0;
	}
	take_mark(holder, lock, &ignored);
	if (holder->n >= LS_MAX_MARKS) {
		/* The oldest is the most likely to have been released unseen. */
		for (int i = 1; i < LS_MAX_MARKS; i++)
			holder->marks[i - 1] = holder->marks[i];
		holder->n = LS_MAX_MARKS - 1;
	}
	holder->state = LS_HOLDER_RUNNING;
	mark = mark_of(holder, holder->n);
	mark->lock = lock;
	mark->since_ns = now;
	mark->runnable_ns = holder->runnable_ns;
	mark->blocked_ns = holder->blocked_ns;
	mark->kind = (__u8)kind;
	mark->maybe = kind >> 8;
	holder->n++;
	return 0;
}

/* The current thread does not have it any more, or never had: then `counts` is 0. */
__noinline int unmark_holder(__u64 lock, __u64 now, __u32 counts)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct ls_holder *holder = bpf_map_lookup_elem(&holders, &tid);
	struct ls_split_key key = {};
	struct ls_mark mark = {};
	struct ls_split *split;

	if (!holder || !take_mark(holder, lock, &mark) || !counts)
		return 0;
	key.process = holder->process;
	key.lock = lock;
	key.kind = mark.kind;
	split = find_or_make(&splits, &key, &zero_split);
	if (!split) {
		count(LS_LOST_SPLITS_FULL);
		return 0;
	}
	__sync_fetch_and_add(&split->count, 1);
	if (now > mark.since_ns)
		__sync_fetch_and_add(&split->held_ns, now - mark.since_ns);
	__sync_fetch_and_add(&split->runnable_ns, holder->runnable_ns - mark.runnable_ns);
	__sync_fetch_and_add(&split->blocked_ns, holder->blocked_ns - mark.blocked_ns);
	return 0;
}

/* What the current thread is known to have of pthreads' objects is void. */
__noinline int forget_marked_objects(void)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct ls_holder *holder = bpf_map_lookup_elem(&holders, &tid);
	__u32 kept = 0;

	if (!holder)
		return 0;
	for (int i = 0; i < LS_MAX_MARKS; i++) {
		if (i >= holder->n)
			break;
		if (holder->marks[i].kind != LS_MARK_OBJECT)
			*mark_of(holder, kept++) = holder->marks[i];
	}
	holder->n = kept;
	return 0;
}
