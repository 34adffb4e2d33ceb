/* The set of locks that a thread has: entering, leaving, recursion. */
#pragma once

#include "mutex_words.bpf.h"
#include "pthread_maps.bpf.h"

/* The slot of an object among what the thread has, newest first; -1: none. */
static __always_inline int find_held(const struct ls_pthread *thread, __u64 address)
{
	int found = -1;

	for (int i = 0; i < LS_MAX_ACQUIRED; i++) {
		if (i >= thread->n)
			break;
		if (thread->held[i].address == address)
			found = i;
	}
	return found;
}

/* Slots are told apart by number: see begin_hold() in holds.bpf.h. */
static __always_inline struct ls_acquired *slot_of(struct ls_pthread *thread, __u32 slot)
{
	asm volatile("" : "+r"(slot)); /* or the mask may go */
	return &thread->held[slot & (LS_MAX_ACQUIRED - 1)];
}

static __always_inline void remove_held(struct ls_pthread *thread, int slot)
{
	__u32 last = thread->n - 1;

	if (last >= LS_MAX_ACQUIRED)
		return;
	if (last != slot)
		*slot_of(thread, slot) = *slot_of(thread, last);
	thread->n = last;
}

/* It turns out that the thread does not have it. */
static __always_inline void forget_held(struct ls_pthread *thread, int slot)
{
	if (ls_mark_holders)
		unmark_holder(slot_of(thread, slot)->address, 0, 0);
	remove_held(thread, slot);
}

/* A free slot. If there is none, that goes which is least likely to be held: what
 * may never have been acquired, or else the oldest. */
static __always_inline __u32 free_slot(struct ls_pthread *thread)
{
	__u32 slot = 0;

	if (thread->n < LS_MAX_ACQUIRED)
		return thread->n++;
	for (int i = LS_MAX_ACQUIRED - 1; i >= 0; i--)
		if (thread->held[i].flags & LS_ACQUIRED_MAYBE)
			slot = i;
	count_pthread(LS_PTHREAD_LOST_HELD);
	if (ls_mark_holders)
		unmark_holder(slot_of(thread, slot)->address, 0, 0);
	return slot;
}
