/* Threads of the pthread tier: what each has acquired. Shared with the futex
 * tier, which knows when a sleep ended. */
#pragma once

#include "holder_state.bpf.h"
#include "maps.bpf.h"
#include "pthread_tier.h"

/* Made as large as LS_PTHREADS only if the tier is wanted (pthread_probe.cc). */
LS_HASH(pthreads, __u32, struct ls_pthread, 1);

/* While the pthread tier's probes are placed. */
volatile __u32 ls_note_wake_ups = 0;

/* From taking the time of a wake-up to the thread's going on, about (pthread_probe.cc). */
volatile __u32 ls_wake_ns = 0;

static __always_inline int is_word_of(__u64 word, __u64 object)
{
	return object && word - object < LS_OBJECT_BYTES;
}

/* Marks the current thread as the holder of what it has entered as such. Who waits for
 * a semaphore may never post it: those are not marked. `maybe`: LS_MARK_MAYBE, or 0. */
static __always_inline void mark_acquired(const struct ls_pthread *thread,
					  const struct ls_acquired *held, __u32 maybe, __u64 now)
{
	if (ls_mark_holders && held->flags & LS_ACQUIRED_CONTENDED && held->kind != LS_OBJECT_SEM)
		mark_holder(thread->process, held->address, LS_MARK_OBJECT | maybe, now);
}

/* The current thread's sleep on a futex word has ended. If it slept for the
 * object that it asked for last, this is when it has it; or it will sleep again.
 * After a condition it may have to sleep for the mutex as well.
 * `woken`: by somebody else, not by a timeout. */
static __noinline __attribute__((unused)) int note_wake_up(__u32 tid, __u64 word, __u64 now,
								   int slept, int woken)
{
	struct ls_pthread *thread = bpf_map_lookup_elem(&pthreads, &tid);

	if (!thread || (!is_word_of(word, thread->pending) && !is_word_of(word, thread->pending_cond)))
		return 0;
	for (int i = 0; i < LS_MAX_ACQUIRED; i++) {
		struct ls_acquired *held = &thread->held[i];

		if (i >= thread->n)
			break;
		if (held->address != thread->pending)
			continue;
		held->since_ns = now;
		if (slept && is_word_of(word, thread->pending))
			held->flags |= LS_ACQUIRED_SLEPT | LS_ACQUIRED_CONTENDED;
		mark_acquired(thread, held,
			      held->flags & LS_ACQUIRED_MAYBE && !woken ? LS_MARK_MAYBE(0) : 0, now);
	}
	return 0;
}

/* The current thread goes to sleep for the object that it asked for last: it does
 * not have it yet. */
static __noinline __attribute__((unused)) int note_sleep(__u32 tid, __u64 word, __u64 now)
{
	struct ls_pthread *thread = bpf_map_lookup_elem(&pthreads, &tid);

	if (thread && is_word_of(word, thread->pending))
		unmark_holder(thread->pending, now, 0);
	return 0;
}
