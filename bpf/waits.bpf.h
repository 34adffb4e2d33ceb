/* The life of one thread at its locks: it goes to sleep, wakes, has the lock,
 * releases it. */
#pragma once

#include "books.bpf.h"

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

/* Elements of a futex_waitv call that are looked at; more are counted with the
 * first. */
#define LS_MAX_WAITV 8

struct futex_waitv {
	__u64 val;
	__u64 uaddr;
	__u32 flags;
	__u32 reserved;
};

/* A futex call as the programs pass it around. */
struct futex_call {
	__u64 word;
	__u64 second_word;
	__u32 op; /* enum ls_op */
	__u32 value;
	__u32 shared;
	__u32 timed;
	__u32 limit; /* requeue: how many may be woken; waitv: elements */
	__u32 padding;
	__u64 now; /* when the call was entered */
};

static const struct ls_thread zero_thread = {};

static __always_inline int capturing(__u64 now)
{
	return now >= ls_start_ns && now < ls_stop_ns;
}

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

static __always_inline int is_pi_wait(__u32 op)
{
	return op == LS_OP_LOCK_PI || op == LS_OP_LOCK_PI2;
}

static __always_inline __u32 traits_of(const struct futex_call *call)
{
	__u32 traits = call->timed ? LS_TRAIT_TIMEOUT : 0;

	if (call->shared)
		traits |= LS_TRAIT_SHARED;
	switch (call->op) {
	case LS_OP_WAIT: traits |= LS_TRAIT_PLAIN_WAIT; break;
	case LS_OP_WAIT_BITSET: traits |= LS_TRAIT_BITSET_WAIT; break;
	case LS_OP_WAITV: traits |= LS_TRAIT_WAITV; break;
	case LS_OP_WAIT_REQUEUE_PI: traits |= LS_TRAIT_REQUEUE; break;
	default: return traits | LS_TRAIT_PI;
	}
	if (call->value == 0)
		return traits | LS_TRAIT_VAL_0;
	if (call->value == 2)
		return traits | LS_TRAIT_VAL_2;
	if (call->value == 3)
		return traits | LS_TRAIT_VAL_3;
	return traits | (is_owned_word(call->value) ? LS_TRAIT_VAL_OWNED : LS_TRAIT_VAL_OTHER);
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

/* Threads that were asleep before the capture are entered from another CPU while
 * their call may be ending. Whoever makes the entry here takes the wait out of
 * the books; nobody else does. Once a thread and capture. */
LS_HASH(adopted_ended, __u32, __u8, 16384);

static __always_inline int claim_adopted(__u32 tid)
{
	__u8 one = 1;

	return bpf_map_update_elem(&adopted_ended, &tid, &one, BPF_NOEXIST) == 0;
}

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
		id = find_lock_key((void *)bpf_get_current_task(), process, element.uaddr,
				   !(element.flags & 128), &key);
		lock = find_or_make_lock(id, &key, process, element.uaddr);
		if (lock)
			__sync_fetch_and_add(&lock->visitors, by);
	}
	return 0;
}

/* The thread goes to sleep on call->word, unless the kernel finds it changed. */
static __noinline int begin_wait(const struct futex_call *call)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)pid_tgid;
	__u64 now = call->now;
	struct ls_thread *thread;
	struct ls_lock_key key = {};
	struct ls_lock *lock;
	__u64 id, started = now;
	int goes_on;

	if (!capturing(now))
		return 0;
	thread = bpf_map_lookup_elem(&threads, &tid);
	if (!thread) {
		thread = find_or_make(&threads, &tid, &zero_thread);
		if (!thread) {
			count(LS_LOST_THREAD_TABLE_FULL);
			return 0;
		}
		thread->process = process_of(task, pid_tgid >> 32);
		meet_process(thread->process, now);
	}
	id = find_lock_key(task, thread->process, call->word, call->shared, &key);

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
	} else if (thread->episode_ns) {
		started = thread->since_ns;
	}
	if (!thread->stack) {
		__u32 value = 0;

		/* The thread is about to sleep: its stack costs least now. If the word
		 * has changed it will not sleep, and most likely have the lock. */
		if (call->op == LS_OP_WAITV || is_pi_wait(call->op) ||
		    (bpf_probe_read_user(&value, sizeof(value), (void *)call->word) == 0 &&
		     value == call->value))
			thread->stack = take_stack(thread->process);
	}
	forget_hold(thread, id, lock, now);
	thread->since_ns = started;
	thread->word = call->word;
	thread->value = call->value;
	thread->op = call->op;
	thread->limit = call->limit;
	thread->before_attach = 0;
	thread->second_lock = 0;
	if (call->op == LS_OP_WAIT_REQUEUE_PI) {
		struct ls_lock_key second = {};

		thread->second_lock = find_lock_key(task, thread->process, call->second_word,
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
	return 0;
}

/* Charges the waiting on a lock up to `at_ns` to a stack that released it. */
static __always_inline struct ls_release_row *charge(__u64 lock_id, struct ls_lock *lock,
						     __u64 stack, __u64 at_ns)
{
	struct ls_release_row *row = release_row(lock_id, stack);

	if (row) {
		__u64 blame = claim_area(lock_id, lock, at_ns);

		if (blame)
			__sync_fetch_and_add(&row->blame_ns, blame);
	}
	return row;
}

/* The waiter was in the books of another lock: enters its time here at last,
 * and charges it to the release that ended it. */
static __always_inline void settle_visit(struct ls_thread *thread, __u64 lock_id,
					 struct ls_lock *lock, __u64 from_ns, __u64 now,
					 __s64 result)
{
	__u64 waker = 0;

	book_begin(lock, from_ns);
	book_end(lock, now);
	if (*(volatile __u64 *)&lock->last_release_ns >= from_ns) {
		waker = lock->last_release_stack;
		charge(lock_id, lock, waker, now);
	}
	add_wait(wait_row(lock_id, thread->stack), now - from_ns, 0, result);
	add_pair(pair_row(lock_id, thread->stack, waker), now - from_ns);
}

/* If the waiter was moved to another futex while it slept, settles both locks
 * and returns 1. Who was moved and who was woken the kernel does not say; it
 * wakes first those that it would wake anyway, so the first to leave after a
 * requeue count as woken by it. */
static __noinline int end_requeued_wait(struct ls_thread *thread, struct ls_lock *lock, __u64 now,
					__s64 result)
{
	__u64 moved_ns = lock->requeue_ns;
	__u64 second_id = lock->requeued_to;
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
	add_wait(wait_row(thread->lock, thread->stack), moved_ns - thread->since_ns, 0, 0);
	/* The requeue was a release of the first lock; it is the last one seen. */
	add_pair(pair_row(thread->lock, thread->stack, lock->last_release_stack),
		 moved_ns - thread->since_ns);
	settle_visit(thread, second_id, second, moved_ns, now, result);
	return 1;
}

/* A futex_waitv call ended with another element than the first. */
static __noinline int end_waitv(struct ls_thread *thread, struct ls_lock *first, __u64 now,
				__s64 index)
{
	struct futex_waitv element = {};
	struct ls_lock_key key = {};
	struct ls_lock *lock;
	__u64 id;

	if (bpf_probe_read_user(&element, sizeof(element),
				(void *)(thread->second_lock + index * sizeof(element))))
		return 0;
	id = find_lock_key((void *)bpf_get_current_task(), thread->process, element.uaddr,
			   !(element.flags & 128), &key);
	lock = find_or_make_lock(id, &key, thread->process, element.uaddr);
	if (!lock)
		return 0;
	book_end(first, thread->since_ns);
	set_bits_u32(&lock->traits, LS_TRAIT_WAITV);
	settle_visit(thread, id, lock, thread->since_ns, now, 0);
	return 1;
}

/* The current thread's futex call returned. Everything is looked up before the
 * clock is read: the way back to user space that remains is then short, and the
 * wait as the program itself sees it little longer than what is entered. */
static __noinline int end_wait(struct ls_thread *thread, __s64 result)
{
	struct ls_wait_row *row;
	struct ls_pair_row *pair;
	struct ls_lock *lock;
	__u64 waker = 0, now, slept;
	__u32 kind;

	if (!capturing(now_ticks_ns()))
		return 0;
	thread->phase = LS_PHASE_IDLE;
	if (thread->before_attach && !claim_adopted((__u32)bpf_get_current_pid_tgid()))
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
		thread->since_ns = now_ticks_ns();
		return 0;
	}
	if (!thread->stack)
		thread->stack = take_stack(thread->process);
	if (!lock) {
		count_n(LS_LOST_LOCK_TABLE_FULL_NS, now_ticks_ns() - thread->since_ns);
		return 0;
	}
	if (thread->op == LS_OP_WAITV && result > 0 &&
	    end_waitv(thread, lock, now_ticks_ns(), result))
		return 0;
	if (lock->requeue_ns && end_requeued_wait(thread, lock, now_ticks_ns(), result))
		return 0;

	if (*(volatile __u64 *)&lock->last_release_ns >= thread->since_ns)
		waker = lock->last_release_stack;
	row = wait_row(thread->lock, thread->stack);
	pair = pair_row(thread->lock, thread->stack, waker);
	now = now_ticks_ns();
	slept = now - thread->since_ns;
	book_end(lock, now);
	add_wait(row, slept, thread->episode_ns, result);
	add_pair(pair, slept);
	thread->episode_ns += slept;
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

/* The current thread is about to wake whoever waits on a word: it releases
 * what the word stands for. Done before the wake-up, so that the woken thread
 * finds its waker in the books. */
static __noinline int release(__u64 word, __u32 shared, __u32 traits, __u64 now)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)pid_tgid;
	struct ls_thread *thread;
	struct ls_lock_key key = {};
	struct ls_release_row *row;
	struct ls_lock *lock;
	__u64 process, id, stack, held_ns = 0;
	__u32 waiters;

	if (!capturing(now))
		return 0;
	thread = bpf_map_lookup_elem(&threads, &tid);
	process = thread ? thread->process : process_of(task, pid_tgid >> 32);
	id = find_lock_key(task, process, word, shared, &key);
	lock = bpf_map_lookup_elem(&locks, &id);
	if (!lock)
		return 0;
	waiters = book_waiters(*(volatile __u64 *)&lock->book);
	if (thread) {
		held_ns = end_hold(thread, lock, id, word, now);
		if (thread->phase == LS_PHASE_WOKEN && thread->lock == id)
			thread->phase = LS_PHASE_IDLE;
	} else {
		meet_process(process, now);
	}
	if (!waiters && !held_ns && *(volatile __s32 *)&lock->visitors <= 0)
		return 0;
	stack = take_stack(process);
	if (waiters || *(volatile __s32 *)&lock->visitors > 0) {
		__sync_fetch_and_add(&lock->waited_releases, 1);
		if (has_thread_bit(lock->waiter_threads, tid)) {
			traits |= LS_TRAIT_SELF_RELEASE;
			__sync_fetch_and_add(&lock->self_releases, 1);
		}
		if (traits)
			set_bits_u32(&lock->traits, traits);
		lock->last_release_stack = stack;
		*(volatile __u64 *)&lock->last_release_ns = now;
	}
	row = charge(id, lock, stack, now);
	if (!row)
		return 0;
	set_thread_bit(lock->releaser_threads, tid);
	__sync_fetch_and_add(&row->count, 1);
	if (held_ns)
		add_hold(row, held_ns);
	return 0;
}

/* Waiters move from one futex to another, those above call->limit. */
static __noinline int begin_requeue(const struct futex_call *call)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	__u64 now = call->now;
	struct task_struct *task = (void *)bpf_get_current_task();
	struct ls_lock_key key = {};
	struct ls_thread *thread;
	struct ls_lock *second;

	if (!capturing(now))
		return 0;
	thread = find_or_make(&threads, &tid, &zero_thread);
	if (!thread) {
		count(LS_LOST_THREAD_TABLE_FULL);
		return 0;
	}
	if (!thread->process)
		thread->process = process_of(task, bpf_get_current_pid_tgid() >> 32);
	release(call->word, call->shared, LS_TRAIT_REQUEUE, now);
	thread->lock = find_lock_key(task, thread->process, call->word, call->shared, &key);
	thread->second_lock = find_lock_key(task, thread->process, call->second_word,
					    call->shared, &key);
	second = find_or_make_lock(thread->second_lock, &key, thread->process,
				   call->second_word);
	if (!second || !bpf_map_lookup_elem(&locks, &thread->lock))
		return 0;
	thread->phase = LS_PHASE_IDLE;
	thread->requeueing = 1;
	thread->call_ns = now;
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
