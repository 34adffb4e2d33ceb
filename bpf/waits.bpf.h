/* The waits of one thread: it goes to sleep at a lock, wakes, has it or not. */
#pragma once

#include "pthread_state.bpf.h"
#include "visits.bpf.h"

/* The thread goes to sleep on call->word, unless the kernel finds it changed. */
static __noinline int begin_wait(const struct futex_call *call, struct ls_cpu *cpu)
{
	__u32 tid = (__u32)call->pid_tgid;
	__u64 now = now_ticks_ns();
	struct ls_thread *thread;
	struct ls_lock_key key = {};
	struct ls_lock *lock;
	__u64 id, started = now;
	int goes_on;

	if (!capturing(now))
		return 0;
	thread = find_or_make_thread(call->pid_tgid);
	if (!thread)
		return 0;
	id = find_lock_key(0, thread->process, call->word, call->shared, &key);

	if (thread->phase == LS_PHASE_WAITING) {
		/* The end of the last wait never came: take it out again. */
		struct ls_lock *last = bpf_map_lookup_elem(&locks, &thread->lock);

		if (last && (!thread->before_attach || claim_adopted(tid)))
			book_end(last, thread->since_ns);
		count(LS_LOST_EXIT_MISSED);
		thread->phase = LS_PHASE_IDLE;
	}
	lock = find_or_make_lock(id, &key, thread->process, call->word);
	/* Beaten to the lock, and back to sleep: the same wait. Without a limit in
	 * time only for words that waiters themselves are seen to release: musl's
	 * condition variables too wait while 2. */
	goes_on = thread->phase == LS_PHASE_WOKEN && thread->lock == id &&
		  thread->value == call->value &&
		  ((is_contended_word(call->op, call->value) && lock &&
		    lock->traits & LS_TRAIT_SELF_RELEASE) ||
		   ((is_contended_word(call->op, call->value) ||
		     may_be_contended_word(call->op, call->value)) &&
		    now - thread->since_ns < LS_RETRY_NS));
	if (lock && book_waiters(lock->book) >= LS_MAX_WAITERS)
		lock = 0;
	if (!goes_on) {
		thread->episode_ns = 0;
		thread->stack = 0;
		thread->sampled = 0;
		thread->odds = cpu->odds;
		if (lock && !lock->waits.sleeps)
			thread->odds.threshold = 0; /* one stack at least, of each lock */
	} else if (thread->episode_ns) {
		started = thread->since_ns;
	}
	if (!thread->stack && !thread->odds.threshold) {
		__u32 value = 0;

		/* The thread is about to sleep: its stack costs least now, if it is to
		 * be taken for certain. If the word has changed it will not sleep, and
		 * most likely have the lock. */
		if (call->op == LS_OP_WAITV || is_pi_wait(call->op) ||
		    (bpf_probe_read_user(&value, sizeof(value), (void *)call->word) == 0 &&
		     value == call->value))
			thread->stack = take_stack(thread->process);
	}
	forget_hold(thread, id, lock, now);
	if (ls_note_wake_ups && ls_mark_holders)
		note_sleep(tid, call->word, now);
	thread->since_ns = started;
	thread->word = call->word;
	thread->value = call->value;
	thread->op = call->op;
	thread->limit = call->limit;
	thread->before_attach = 0;
	thread->second_lock = 0;
	if (call->op == LS_OP_WAIT_REQUEUE_PI) {
		struct ls_lock_key second = {};

		thread->second_lock = find_lock_key(0, thread->process, call->second_word,
						    call->shared, &second);
	}
	if (!lock) {
		count(LS_LOST_LOCK_TABLE_FULL);
		thread->lock = 0;
		thread->phase = LS_PHASE_WAITING;
		return 0;
	}
	set_bits_u32(&lock->traits, traits_of(call));
	set_thread_bit(lock->waiter_threads, tid);
	thread->lock = id;
	thread->phase = LS_PHASE_WAITING;
	book_begin(lock, started);
	if (call->op == LS_OP_WAITV) {
		thread->second_lock = call->second_word;
		visit_elements(call->second_word, call->limit, thread->process, 1);
	}
	return 0;
}

/* The current thread's futex call returned. */
static __noinline int end_wait(struct ls_thread *thread, __u32 tid, __s64 result)
{
	struct ls_sleep sleep = { .result = result };
	struct ls_lock *lock, *visited = 0;
	__u64 now;
	__u32 kind;

	now = now_ticks_ns();
	if (!capturing(now))
		return 0;
	thread->phase = LS_PHASE_IDLE;
	if (thread->before_attach && !claim_adopted(tid))
		return 0;
	if (thread->op == LS_OP_WAITV && thread->limit > 1)
		visit_elements(thread->second_lock, thread->limit, thread->process, -1);
	lock = bpf_map_lookup_elem(&locks, &thread->lock);
	if (result == -11 && !thread->episode_ns && !is_pi_wait(thread->op)) {
		/* EAGAIN: the word had changed, it never slept. Not a wait, then; if
		 * it comes back at once, that is the beginning of one. */
		if (lock)
			book_end(lock, thread->since_ns);
		thread->phase = LS_PHASE_WOKEN;
		thread->since_ns = now;
		return 0;
	}
	if (!lock) {
		count_n(LS_LOST_LOCK_TABLE_FULL_NS, now - thread->since_ns);
		return 0;
	}
	sleep.lock = thread->lock;
	sleep.from_ns = thread->since_ns;
	sleep.until_ns = now;
	sleep.before_ns = thread->episode_ns;
	if (thread->op == LS_OP_WAITV && result > 0)
		visited = leave_waitv(thread, lock, &sleep);
	else if (lock->requeue_ns)
		visited = leave_requeued(thread, lock, &sleep);
	if (visited)
		return settle_visit(thread, visited, &sleep);

	sleep.lock = thread->lock;
	book_end(lock, now);
	add_sleep(thread, lock, &sleep);
	thread->episode_ns += now - thread->since_ns;
	thread->since_ns = now;
	if (thread->op == LS_OP_WAIT_REQUEUE_PI) {
		struct ls_lock *second = bpf_map_lookup_elem(&locks, &thread->second_lock);

		if (result == 0 && second)
			begin_hold(thread, thread->second_lock, second, LS_HOLD_CERTAIN, now);
		return 0;
	}
	/* 0: woken, or has the PI lock. EAGAIN: beaten to going back to sleep, so
	 * the lock may well be free. */
	if (result != 0 && (result != -11 || is_pi_wait(thread->op)))
		return 0;
	thread->phase = LS_PHASE_WOKEN;
	kind = hold_kind(thread->op, thread->value, thread->word, lock->traits);
	if (result == 0)
		__sync_fetch_and_add(&lock->acquisitions, 1);
	else if (kind == LS_HOLD_LIKELY)
		return 0;
	if (kind)
		begin_hold(thread, thread->lock, lock, kind, now);
	return 0;
}
