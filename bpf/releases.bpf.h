/* Releases: a thread wakes those who wait, or moves them to another lock. */
#pragma once

#include "futex_call.bpf.h"
#include "threads.bpf.h"

/* The current thread is about to wake whoever waits on a word: it releases
 * what the word stands for. Done before the wake-up, so that the woken thread
 * finds its waker in the books. */
static __noinline int release(const struct futex_call *call, struct ls_cpu *cpu, __u64 word,
			      __u32 traits)
{
	__u64 process, id, now, blame, mass, stack = 0, held_ns = 0;
	__u32 random, probability = 0, tid = (__u32)call->pid_tgid;
	struct ls_release_row *row;
	struct ls_lock_key key = {};
	struct ls_thread *thread;
	struct ls_lock *lock;
	struct ls_odds odds;
	int somebody_waits;

	thread = find_or_make_thread(call->pid_tgid);
	process = thread ? thread->process :
			   process_of((void *)bpf_get_current_task(), call->pid_tgid >> 32);
	id = find_lock_key(0, process, word, call->shared, &key);
	lock = bpf_map_lookup_elem(&locks, &id);
	/* Most calls to wake are for nobody, of whom nothing is known. */
	if (!lock)
		return 0;
	now = call->now ? call->now : now_ticks_ns();
	if (!capturing(now))
		return 0;
	somebody_waits = book_waiters(*(volatile __u64 *)&lock->book) ||
			 *(volatile __s32 *)&lock->visitors > 0;
	if (thread) {
		held_ns = end_hold(thread, lock, id, word, now);
		if (thread->phase == LS_PHASE_WOKEN && thread->lock == id)
			thread->phase = LS_PHASE_IDLE;
	}
	if (!somebody_waits && !held_ns)
		return 0;
	blame = claim_area(id, lock, now);
	mass = blame > held_ns ? blame : held_ns;
	random = draw_random(cpu);
	odds = cpu->odds;
	if (!lock->releases.count)
		odds.threshold = 0; /* one stack at least, of each lock */
	if (ls_is_sampled(mass, odds, random)) {
		cpu->counters[LS_COUNT_SAMPLED]++;
		probability = ls_probability_of(mass, odds);
		stack = take_stack(process);
	}
	ls_count_event(cpu, ls_stack_rate, mass, now);
	if (somebody_waits) {
		__sync_fetch_and_add(&lock->waited_releases, 1);
		if (has_thread_bit(lock->waiter_threads, tid)) {
			traits |= LS_TRAIT_SELF_RELEASE;
			__sync_fetch_and_add(&lock->self_releases, 1);
			if (lock->waits.total_ns >= LS_HOT_NS && !lock->pointed) {
				lock->pointed = 1;
				notify(process, LS_NOTICE_CONTENDED);
			}
		}
		if (traits)
			set_bits_u32(&lock->traits, traits);
		lock->last_release_stack = stack;
		lock->last_release_random = random;
		lock->last_release_probability = probability;
		*(volatile __u64 *)&lock->last_release_ns = now;
	}
	set_thread_bit(lock->releaser_threads, tid);
	add_release(&lock->releases, held_ns);
	if (!probability)
		return 0;
	row = release_row(id, stack);
	if (row) {
		__u64 inverse = ls_inverse_of(probability);

		add_release(&row->sums, held_ns);
		__sync_fetch_and_add(&row->blame_ns, blame);
		__sync_fetch_and_add(&row->weight_count, inverse);
		__sync_fetch_and_add(&row->weight_blame_ns, ls_weigh(blame, inverse));
		__sync_fetch_and_add(&row->weight_hold_ns, ls_weigh(held_ns, inverse));
	}
	return 0;
}

/* Waiters move from one futex to another, those above call->limit. */
static __noinline int begin_requeue(struct futex_call *call, struct ls_cpu *cpu)
{
	struct ls_lock_key key = {};
	struct ls_thread *thread;
	struct ls_lock *second;

	call->now = now_ticks_ns();
	if (!capturing(call->now))
		return 0;
	thread = find_or_make_thread(call->pid_tgid);
	if (!thread)
		return 0;
	release(call, cpu, call->word, LS_TRAIT_REQUEUE);
	thread->lock = find_lock_key(0, thread->process, call->word, call->shared, &key);
	thread->second_lock = find_lock_key(0, thread->process, call->second_word,
					    call->shared, &key);
	second = find_or_make_lock(thread->second_lock, &key, thread->process,
				   call->second_word);
	if (!second || !bpf_map_lookup_elem(&locks, &thread->lock))
		return 0;
	thread->phase = LS_PHASE_IDLE;
	thread->requeueing = 1;
	thread->call_ns = call->now;
	thread->limit = call->limit;
	return 0;
}

static __noinline int end_requeue(struct ls_thread *thread, __s64 touched)
{
	struct ls_lock *first = bpf_map_lookup_elem(&locks, &thread->lock);
	struct ls_lock *second = bpf_map_lookup_elem(&locks, &thread->second_lock);
	__s64 woken = touched < thread->limit ? touched : thread->limit;

	thread->requeueing = 0;
	if (!first || !second || touched <= 0)
		return 0;
	first->requeued_to = thread->second_lock;
	first->requeue_ns = thread->call_ns;
	__sync_fetch_and_add(&first->requeue_woken, (__u32)woken);
	__sync_fetch_and_add(&first->requeue_moved, (__u32)(touched - woken));
	__sync_fetch_and_add(&second->visitors, (__u32)(touched - woken));
	set_bits_u32(&second->traits, LS_TRAIT_REQUEUE_TARGET);
	return 0;
}
