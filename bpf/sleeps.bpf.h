/* Sleeps that are over: in the sums of their lock and, if their stacks are
 * taken, in the rows. */
#pragma once

#include "books.bpf.h"
#include "threads.bpf.h"

struct ls_sleep {
	__u64 lock;
	__u64 from_ns;
	__u64 until_ns;
	__u64 before_ns; /* what the wait had come to before this sleep */
	__s64 result;    /* of the system call */
};

/* The last release of a lock, as a sleep that it ended finds it. */
struct ls_waker {
	__u64 stack;
	__u32 random;
	__u32 probability; /* 0: its stack was not taken */
};

static __always_inline void find_waker(const struct ls_lock *lock, __u64 from_ns,
				       struct ls_waker *waker)
{
	if (*(volatile __u64 *)&lock->last_release_ns < from_ns)
		return;
	waker->stack = lock->last_release_stack;
	waker->random = lock->last_release_random;
	waker->probability = lock->last_release_probability;
}

/* 1 / the probability that both stacks were taken: the smaller one's, where the
 * same draw decided. */
static __always_inline __u64 inverse_of_pair(const struct ls_thread *thread, __u64 inverse,
					     const struct ls_waker *waker)
{
	__u64 other = ls_inverse_of(waker->probability), both;

	if (thread->random == waker->random)
		return inverse > other ? inverse : other;
	if (inverse >> 32 || other >> 32)
		return LS_INVERSE_MAX;
	both = inverse * other >> LS_WEIGHT_SHIFT;
	return both < LS_INVERSE_MAX ? both : LS_INVERSE_MAX;
}

/* The current thread has slept at a lock. */
static __noinline int add_sleep(struct ls_thread *thread, struct ls_lock *lock,
				const struct ls_sleep *sleep)
{
	__u64 ns = sleep->until_ns - sleep->from_ns, before_ns = sleep->before_ns;
	__u64 mass = before_ns + ns, in_row_ns;
	struct ls_waker waker = { .probability = LS_CERTAIN };
	struct ls_cpu *cpu = this_cpu();
	struct ls_wait_row *row;
	struct ls_pair_row *pair;

	if (!cpu)
		return 0;
	add_wait(&lock->waits, ns, before_ns, sleep->result);
	ls_count_event(cpu, ls_stack_rate, mass, sleep->until_ns);
	find_waker(lock, sleep->from_ns, &waker);
	if (!before_ns) {
		thread->random = waker.random ? waker.random : draw_random(cpu);
		thread->sampled = 0;
	}
	if (!ls_is_sampled(mass, thread->odds, thread->random))
		return 0;
	cpu->counters[LS_COUNT_SAMPLED]++;
	if (!thread->stack)
		thread->stack = take_stack(thread->process);

	/* One that comes into the sample as it grows comes in as a whole. */
	in_row_ns = thread->sampled ? before_ns : 0;
	thread->sampled = 1;
	row = wait_row(sleep->lock, thread->stack);
	if (row) {
		__u64 weight = ls_weight_of_wait(before_ns + ns, thread->odds);

		if (in_row_ns)
			weight -= ls_weight_of_wait(in_row_ns, thread->odds);
		add_wait(&row->sums, before_ns + ns - in_row_ns, in_row_ns, sleep->result);
		__sync_fetch_and_add(&row->weight_ns, weight);
	}
	if (!waker.probability)
		return 0;
	pair = pair_row(sleep->lock, thread->stack, waker.stack);
	if (pair) {
		__u64 inverse = ls_inverse_of(ls_probability_of(mass, thread->odds));

		if (sleep->result != -11 /* EAGAIN */)
			__sync_fetch_and_add(&pair->count, 1);
		__sync_fetch_and_add(&pair->total_ns, ns);
		__sync_fetch_and_add(&pair->weight_ns,
				     ls_weigh(ns, inverse_of_pair(thread, inverse, &waker)));
	}
	return 0;
}
