/* The pthread tier: every acquisition and release of every lock of a process, at
 * cheap instructions of libc's own functions (userspace/uprobe). An acquisition is
 * where the thread asked for the lock or, if it had to sleep for it, where the futex
 * tier saw it wake up last. */
#include "pthread_held.bpf.h"
#include "stacks.bpf.h"

char LICENSE[] SEC("license") = "GPL";

#define X86_FLAG_ZERO (1 << 6)

/* Newest first, of the locks held when another one is asked for. */
#define LS_MAX_ORDERS 4

/* Whether this acquisition's stack is to be taken; if so, the inverse of the
 * probability of that, else 0. All are equal: how long the lock will be held is not
 * known yet. */
static __always_inline __u32 draw_stack(struct ls_pthread_cpu *cpu, __u64 now)
{
	struct ls_odds odds = cpu->sample.odds;
	__u32 random = draw_random(&cpu->sample);

	ls_count_event(&cpu->sample, ls_stack_rate, 1, now);
	if (!ls_is_sampled(1, odds, random))
		return 0;
	return ls_inverse_of(ls_probability_of(1, odds));
}

static __always_inline void remember_order(struct ls_pthread *thread, __u64 held, __u64 wanted,
					   __u32 kind)
{
	struct ls_order_key key = { .process = thread->process, .held = held, .wanted = wanted };
	struct ls_order_row *row = bpf_map_lookup_elem(&orders, &key);

	if (!row) {
		row = find_or_make(&orders, &key, &zero_order_row);
		if (!row) {
			count_pthread(LS_PTHREAD_LOST_ORDERS);
			return;
		}
		row->tid = (__u32)bpf_get_current_pid_tgid();
		row->stack = take_stack(thread->process);
		/* It may never be released. */
		find_object(thread, wanted, kind);
	}
	__sync_fetch_and_add(&row->count, 1);
}

static __noinline int remember_orders(struct ls_pthread *thread, __u64 wanted, __u32 kind)
{
	for (int i = 1; i <= LS_MAX_ORDERS; i++) {
		const struct ls_acquired *held = slot_of(thread, thread->n - i);

		if (i > thread->n)
			break;
		if (held->kind != LS_OBJECT_SEM && !(held->flags & LS_ACQUIRED_MAYBE))
			remember_order(thread, held->address, wanted, kind);
	}
	return 0;
}

/* The thread asks for what it has, or seems to have. Returns whether that is all
 * there is to it; otherwise it did not have it. */
static __noinline int ask_again(struct ls_pthread *thread, __u32 slot, __u32 libc, __u32 flags)
{
	struct ls_acquired *held = slot_of(thread, slot);
	__u32 kind = held->kind;

	if (kind == LS_OBJECT_MUTEX &&
	    read_mutex(held->address, libc, (__u32)bpf_get_current_pid_tgid()).mine) {
		held->flags |= LS_ACQUIRED_AGAIN;
		return 1;
	}
	if (kind == LS_OBJECT_RWLOCK && held->flags & flags & LS_ACQUIRED_READ &&
	    !(held->flags & LS_ACQUIRED_MAYBE)) {
		held->depth++;
		return 1;
	}
	/* One of libc's functions called another: musl's do, where they have to wait. */
	if (thread->previous == held->address && kind != LS_OBJECT_SEM &&
	    !(held->flags & LS_ACQUIRED_MAYBE)) {
		thread->pending = held->address;
		return 1;
	}
	if (kind == LS_OBJECT_SEM || held->flags & LS_ACQUIRED_MAYBE) {
		struct ls_object *object = find_object(thread, held->address, kind);

		add_event(object, held->flags & LS_ACQUIRED_MAYBE ? LS_EVENT_FAILED :
								   LS_EVENT_NEVER_POSTED);
	} else {
		count_pthread(LS_PTHREAD_UNMATCHED);
	}
	forget_held(thread, slot);
	return 0;
}

/* Enters a lock in the set of what the thread has. `libc`, in the high half of
 * `flags`: whose mutex it is; a function has five arguments at most. */
static __noinline int enter_held(struct ls_pthread *thread, __u64 address, __u32 kind, __u32 flags,
				 __u64 now)
{
	__u32 libc = kind == LS_OBJECT_MUTEX ? flags >> 16 : 0;
	struct ls_pthread_cpu *cpu = this_pthread_cpu();
	struct ls_acquired *held = slot_of(thread, free_slot(thread));

	held->address = address;
	held->since_ns = now;
	held->kind = kind;
	held->flags = flags;
	held->depth = 1;
	held->inverse = cpu ? draw_stack(cpu, now) : 0;
	held->stack = 0;
	if (held->inverse) {
		__u64 before = bpf_ktime_get_ns();

		held->stack = take_stack(thread->process);
		held->since_ns += bpf_ktime_get_ns() - before;
	}
	thread->pending = address;
	if (ls_mark_holders && is_contended(thread, address)) {
		held->flags |= LS_ACQUIRED_CONTENDED;
		mark_acquired(thread, held, flags & LS_ACQUIRED_MAYBE ? LS_MARK_MAYBE(libc) : 0, now);
	}
	return 0;
}

/* The current thread asks for a lock: it has it now, or when its sleep ends. */
static __always_inline int acquire_at(struct ls_pthread *thread, __u64 address, __u32 kind,
				      __u32 flags, __u32 libc, __u64 now)
{
	int slot = find_held(thread, address);

	if (slot >= 0) {
		if (ask_again(thread, slot, libc, flags))
			return 0;
	} else if (kind == LS_OBJECT_MUTEX) {
		/* Recursion into what it has had since before we looked. */
		if (read_mutex(address, libc, (__u32)bpf_get_current_pid_tgid()).mine)
			return 0;
	}
	if (thread->n && kind != LS_OBJECT_SEM && !(flags & LS_ACQUIRED_MAYBE))
		remember_orders(thread, address, kind);
	enter_held(thread, address, kind, flags | libc << 16, now);
	return 0;
}

/* Whoever waits since before the slice is not known. */
static __always_inline struct ls_object *find_cond(const struct ls_pthread *thread, __u64 address)
{
	struct ls_object *cond = find_object(thread, address, LS_OBJECT_COND);

	if (cond && cond->slice != ls_slice) {
		cond->slice = ls_slice;
		cond->waiting = 0;
	}
	return cond;
}

/* The thread is in another call: it has left the one before. */
static __always_inline struct ls_pthread *next_call(__u64 now)
{
	struct ls_pthread *thread;

	if (!in_slice(now))
		return 0;
	thread = current_pthread();
	if (!thread)
		return 0;
	thread->hits++;
	if (thread->pending_cond) {
		struct ls_object *cond = find_cond(thread, thread->pending_cond);

		if (cond)
			__sync_fetch_and_add(&cond->waiting, -1);
		thread->pending_cond = 0;
	}
	thread->previous = thread->pending;
	thread->pending = 0;
	return thread;
}

/* Global, with numbers for arguments: verified once, not on every way to them. */
__noinline int acquire(__u64 address, __u32 kind, __u32 flags, __u32 libc, __u32 call)
{
	__u64 now = now_ticks_ns();
	struct ls_pthread *thread = next_call(now);

	return thread ? acquire_at(thread, address, kind, flags, libc, begin_of(call, now)) : 0;
}

/* When the current thread woke from its last sleep, if it slept for the object and
 * woke in this slice; else 0. */
static __always_inline __u64 woken_for(__u64 address)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	const struct ls_thread *thread = bpf_map_lookup_elem(&threads, &tid);

	if (!thread || thread->phase == LS_PHASE_WAITING || !is_word_of(thread->word, address))
		return 0;
	return thread->since_ns > ls_slice_start_ns ? thread->since_ns : 0;
}

/* The release of what the thread is not known to have: from before we looked, or
 * another thread's. */
static __noinline int release_unknown(struct ls_pthread *thread, __u64 address, __u32 kind,
				      __u32 libc, __u64 now)
{
	struct ls_object *object;
	__u64 since_ns;

	if (kind == LS_OBJECT_MUTEX) {
		struct mutex_state mutex =
			read_mutex(address, libc, (__u32)bpf_get_current_pid_tgid());

		if (mutex.known && (!mutex.mine || mutex.again))
			return 0; /* EPERM; or not released yet */
	}
	object = find_object(thread, address, kind);
	if (!object)
		return 0;
	if (kind == LS_OBJECT_SEM) {
		add_event(object, LS_EVENT_POSTS);
		return 0;
	}
	since_ns = kind == LS_OBJECT_MUTEX ? woken_for(address) : 0;
	if (since_ns) {
		/* It had been asleep for it since before the slice. */
		add_release(&object->holds, now > since_ns ? now - since_ns : 0);
		add_event(object, LS_EVENT_CONTENDED);
		return 0;
	}
	__sync_fetch_and_add(&object->before_count, 1);
	if (now > ls_slice_start_ns)
		__sync_fetch_and_add(&object->before_ns, now - ls_slice_start_ns);
	return 0;
}

static __always_inline void add_to_row(struct ls_pthread *thread, const struct ls_acquired *held,
				       __u64 held_ns)
{
	struct ls_hold_key key = {
		.process = thread->process,
		.address = held->address,
		.stack = held->stack,
	};
	struct ls_hold_row *row = find_or_make(&hold_rows, &key, &zero_hold_row);

	if (!row) {
		count_pthread(LS_PTHREAD_LOST_HOLD_ROWS);
		return;
	}
	add_release(&row->sums, held_ns);
	__sync_fetch_and_add(&row->weight_count, held->inverse);
	__sync_fetch_and_add(&row->weight_ns, ls_weigh(held_ns, held->inverse));
}

static __noinline int release_at(struct ls_pthread *thread, __u64 address, __u32 kind, __u32 libc,
				 __u64 now)
{
	int slot = find_held(thread, address);
	struct ls_acquired *held;
	struct ls_object *object;
	__u64 held_ns;

	if (slot < 0)
		return release_unknown(thread, address, kind, libc, now);
	held = slot_of(thread, slot);
	if (held->depth > 1) {
		held->depth--;
		return 0;
	}
	if (held->flags & LS_ACQUIRED_AGAIN &&
	    read_mutex(address, libc, (__u32)bpf_get_current_pid_tgid()).again)
		return 0;
	held_ns = now > held->since_ns ? now - held->since_ns : 0;
	object = find_object(thread, address, kind);
	if (object) {
		__sync_fetch_and_add(&object->hits, thread->hits);
		add_release(held->flags & LS_ACQUIRED_READ ? &object->read_holds : &object->holds,
			    held_ns);
		if (held->flags & LS_ACQUIRED_SLEPT)
			add_event(object, LS_EVENT_CONTENDED);
	}
	if (ls_mark_holders && held->flags & LS_ACQUIRED_CONTENDED)
		unmark_holder(address, now, 1);
	if (held->inverse)
		add_to_row(thread, held, held_ns);
	remove_held(thread, slot);
	return 0;
}

__noinline int release_of(__u64 address, __u32 kind, __u32 libc, __u32 call)
{
	__u64 now = now_ticks_ns();
	struct ls_pthread *thread = next_call(now);

	return thread ? release_at(thread, address, kind, libc, end_of(call, now)) : 0;
}

/* A wait for an event: its time is the futex tier's. */
__noinline int wait_for(__u64 address, __u32 kind)
{
	__u64 now = now_ticks_ns();
	struct ls_pthread *thread = next_call(now);

	if (thread)
		add_event(find_object(thread, address, kind), LS_EVENT_WAITS);
	return 0;
}

/* Releases the mutex, and acquires it again when it wakes. */
__noinline int cond_wait(__u64 address, __u64 mutex, __u32 libc)
{
	__u64 now = now_ticks_ns();
	struct ls_pthread *thread = next_call(now);
	struct ls_object *cond;

	if (!thread)
		return 0;
	cond = find_cond(thread, address);
	if (cond) {
		add_event(cond, LS_EVENT_WAITS);
		__sync_fetch_and_add(&cond->waiting, 1);
		cond->partner = mutex;
	}
	thread->pending_cond = address;
	/* musl's calls mutex_unlock and mutex_lock, where we are too. */
	if (libc == LS_LIBC_MUSL)
		return 0;
	release_at(thread, mutex, LS_OBJECT_MUTEX, libc, end_of(LS_CALL_COND_WAIT, now));
	/* Not by acquire_at(): the mutex still says that it is ours. */
	if (find_held(thread, mutex) < 0) {
		enter_held(thread, mutex, LS_OBJECT_MUTEX, 0, now);
		/* When it wakes. */
		if (ls_mark_holders)
			unmark_holder(mutex, now, 0);
	}
	return 0;
}

__noinline int wake(__u64 address, __u32 event, __u32 libc)
{
	__u64 now = now_ticks_ns();
	struct ls_pthread *thread = next_call(now);
	struct ls_object *cond;
	__u32 tid = (__u32)bpf_get_current_pid_tgid();

	if (!thread)
		return 0;
	cond = find_cond(thread, address);
	if (!cond)
		return 0;
	add_event(cond, event);
	if (cond->waiting <= 0)
		add_event(cond, LS_EVENT_NOBODY);
	if (cond->partner && find_held(thread, cond->partner) < 0 &&
	    !read_mutex(cond->partner, libc, tid).mine)
		add_event(cond, LS_EVENT_UNHELD);
	return 0;
}

/* Spin locks whose outcome the site tells are seen once an attempt. */
__noinline int spin_lock(__u64 address, __u32 failed, __u32 libc)
{
	__u64 now = now_ticks_ns(), spinning_ns;
	struct ls_pthread *thread = next_call(now);

	if (!thread)
		return 0;
	spinning_ns = thread->spinning_ns;
	if (failed) {
		if (!spinning_ns) {
			add_event(find_object(thread, address, LS_OBJECT_SPIN), LS_EVENT_SPINS);
			thread->spinning_ns = now;
		}
		return 0;
	}
	if (spinning_ns) {
		struct ls_object *object = find_object(thread, address, LS_OBJECT_SPIN);

		if (object)
			__sync_fetch_and_add(&object->spin_ns, now - spinning_ns);
		thread->spinning_ns = 0;
	}
	return acquire_at(thread, address, LS_OBJECT_SPIN, 0, libc,
			  begin_of(LS_CALL_SPIN_LOCK, now));
}

static __always_inline int handle(struct pt_regs *ctx, __u32 call, __u32 libc, __u32 outcome)
{
	__u64 address = ctx->di;

	count_hit(call);
	switch (call) {
	case LS_CALL_MUTEX_LOCK:
		return acquire(address, LS_OBJECT_MUTEX, 0, libc, call);
	case LS_CALL_MUTEX_TRYLOCK:
	case LS_CALL_MUTEX_TIMEDLOCK:
		return acquire(address, LS_OBJECT_MUTEX, LS_ACQUIRED_MAYBE, libc, call);
	case LS_CALL_MUTEX_UNLOCK:
		return release_of(address, LS_OBJECT_MUTEX, libc, call);
	case LS_CALL_RWLOCK_READ:
		return acquire(address, LS_OBJECT_RWLOCK, LS_ACQUIRED_READ, libc, call);
	case LS_CALL_RWLOCK_TRY_READ:
	case LS_CALL_RWLOCK_TIMED_READ:
		return acquire(address, LS_OBJECT_RWLOCK, LS_ACQUIRED_READ | LS_ACQUIRED_MAYBE, libc, call);
	case LS_CALL_RWLOCK_WRITE:
		return acquire(address, LS_OBJECT_RWLOCK, 0, libc, call);
	case LS_CALL_RWLOCK_TRY_WRITE:
	case LS_CALL_RWLOCK_TIMED_WRITE:
		return acquire(address, LS_OBJECT_RWLOCK, LS_ACQUIRED_MAYBE, libc, call);
	case LS_CALL_RWLOCK_UNLOCK:
		return release_of(address, LS_OBJECT_RWLOCK, libc, call);
	case LS_CALL_COND_WAIT:
		return cond_wait(address, ctx->si, libc);
	case LS_CALL_COND_SIGNAL:
		return wake(address, LS_EVENT_SIGNALS, libc);
	case LS_CALL_COND_BROADCAST:
		return wake(address, LS_EVENT_BROADCASTS, libc);
	case LS_CALL_SEM_WAIT:
		return acquire(address, LS_OBJECT_SEM, 0, libc, call);
	case LS_CALL_SEM_TRYWAIT:
	case LS_CALL_SEM_TIMEDWAIT:
		return acquire(address, LS_OBJECT_SEM, LS_ACQUIRED_MAYBE, libc, call);
	case LS_CALL_SEM_POST:
		return release_of(address, LS_OBJECT_SEM, libc, call);
	case LS_CALL_BARRIER_WAIT:
		return wait_for(address, LS_OBJECT_BARRIER);
	case LS_CALL_ONCE:
		return wait_for(address, LS_OBJECT_ONCE);
	case LS_CALL_JOIN:
		return wait_for(address, LS_OBJECT_JOIN);
	case LS_CALL_SPIN_LOCK:
		return spin_lock(address, outcome && !(ctx->flags & X86_FLAG_ZERO), libc);
	case LS_CALL_SPIN_TRYLOCK:
		return acquire(address, LS_OBJECT_SPIN, LS_ACQUIRED_MAYBE, libc, call);
	case LS_CALL_SPIN_UNLOCK:
		return release_of(address, LS_OBJECT_SPIN, libc, call);
	}
	return 0;
}

#if LS_MODERN
/* One program for all, so that one link can hold all probes: it goes at once. */
SEC("uprobe")
int pthread_call(struct pt_regs *ctx)
{
	__u64 site = bpf_get_attach_cookie(ctx);

	return handle(ctx, LS_SITE_CALL(site), LS_SITE_LIBC(site), LS_SITE_OUTCOME_IN_ZERO_FLAG(site));
}
#else
/* No cookies before 5.15: a program for each call, of glibc; the outcome of a spin
 * lock is where glibc has it. Named by the number of the call. */
#define LS_PROGRAM(call)                                                                  \
	SEC("uprobe")                                                                     \
	int pthread_call_##call(struct pt_regs *ctx)                                      \
	{                                                                                 \
		return handle(ctx, call, LS_LIBC_GLIBC, call == LS_CALL_SPIN_LOCK);       \
	}
LS_PROGRAM(0)
LS_PROGRAM(1)
LS_PROGRAM(2)
LS_PROGRAM(3)
LS_PROGRAM(4)
LS_PROGRAM(5)
LS_PROGRAM(6)
LS_PROGRAM(7)
LS_PROGRAM(8)
LS_PROGRAM(9)
LS_PROGRAM(10)
LS_PROGRAM(11)
LS_PROGRAM(12)
LS_PROGRAM(13)
LS_PROGRAM(14)
LS_PROGRAM(15)
LS_PROGRAM(16)
LS_PROGRAM(17)
LS_PROGRAM(18)
LS_PROGRAM(19)
LS_PROGRAM(20)
LS_PROGRAM(21)
LS_PROGRAM(22)
LS_PROGRAM(23)
#endif
