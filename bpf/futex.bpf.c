/* The futex tier: every blocking lock wait of every process, at the futex
 * system calls. Built twice (see Makefile): LS_MODERN=1 uses what kernels have
 * since 5.15 (atomics that return a value, bpf_task_pt_regs), LS_MODERN=0 loads
 * from 5.10 on. Which one runs is found out by loading it. */
#include "releases.bpf.h"
#include "task_regs.bpf.h"
#include "waits.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* include/uapi/linux/futex.h */
#define FUTEX_PRIVATE_FLAG 128
#define FUTEX_CLOCK_REALTIME 256
#define FUTEX2_PRIVATE FUTEX_PRIVATE_FLAG

#define SYS_FUTEX 202
#define SYS_FUTEX_WAIT 455
#define SYS_FUTEX_REQUEUE 456

/* futex(uaddr, op, val, timeout or val2, uaddr2, val3) */
static __always_inline void read_futex(const struct ls_sys_enter *ctx, struct futex_call *call)
{
	__u32 flags = (__u32)ctx->args[1];

	call->word = ctx->args[0];
	call->second_word = ctx->args[4];
	call->op = flags & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
	call->value = (__u32)ctx->args[2];
	call->limit = call->value;
	call->shared = !(flags & FUTEX_PRIVATE_FLAG);
	call->timed = ctx->args[3] != 0;
}

/* futex_wait(uaddr, val, mask, flags, timeout, clockid), since 6.7 */
static __always_inline void read_futex_wait(const struct ls_sys_enter *ctx,
					    struct futex_call *call)
{
	call->word = ctx->args[0];
	call->op = LS_OP_WAIT_BITSET;
	call->value = (__u32)ctx->args[1];
	call->shared = !(ctx->args[3] & FUTEX2_PRIVATE);
	call->timed = ctx->args[4] != 0;
}

/* futex_wake(uaddr, mask, nr, flags), since 6.7 */
static __always_inline void read_futex_wake(const struct ls_sys_enter *ctx,
					    struct futex_call *call)
{
	call->word = ctx->args[0];
	call->op = LS_OP_WAKE_BITSET;
	call->shared = !(ctx->args[3] & FUTEX2_PRIVATE);
}

/* futex_requeue(waiters[2], flags, nr_wake, nr_requeue), since 6.7 */
static __always_inline long read_futex_requeue(const struct ls_sys_enter *ctx,
					       struct futex_call *call)
{
	struct futex_waitv pair[2] = {};
	long error = bpf_probe_read_user(&pair, sizeof(pair), (void *)ctx->args[0]);

	call->word = pair[0].uaddr;
	call->second_word = pair[1].uaddr;
	call->op = LS_OP_REQUEUE;
	call->limit = (__u32)ctx->args[2];
	call->shared = !(pair[0].flags & FUTEX2_PRIVATE);
	return error;
}

/* futex_waitv(waiters, nr, flags, timeout, clockid), since 5.16: in the books of its first
 * element until it is known which one ended it. */
static __always_inline long read_futex_waitv(const struct ls_sys_enter *ctx,
					     struct futex_call *call)
{
	struct futex_waitv first = {};
	long error = bpf_probe_read_user(&first, sizeof(first), (void *)ctx->args[0]);

	call->word = first.uaddr;
	call->second_word = ctx->args[0];
	call->op = LS_OP_WAITV;
	call->value = (__u32)first.val;
	call->limit = (__u32)ctx->args[1];
	call->shared = !(first.flags & FUTEX2_PRIVATE);
	call->timed = ctx->args[3] != 0;
	return error;
}

/* Whether the current task's call is to be looked at, and what is known of it
 * beforehand. */
static __always_inline int begin_call(struct futex_call *call, struct ls_cpu *cpu)
{
	call->pid_tgid = bpf_get_current_pid_tgid();
	if (!cpu || !capture_has_begun() || !is_target(0, call->pid_tgid >> 32))
		return 0;
	cpu->counters[LS_COUNT_CALLS]++;
	return 1;
}

/* futex, futex_wait and futex_waitv. User space attaches the programs to the
 * tracepoints (futex_probe.cc); the kernel lets them no further than the
 * arguments of the call go. */
SEC("tracepoint")
int enter_futex(struct ls_sys_enter *ctx)
{
	struct ls_cpu *cpu = this_cpu();
	struct futex_call call = {};

	if (!begin_call(&call, cpu))
		return 0;
	if (ctx->nr == SYS_FUTEX)
		read_futex(ctx, &call);
	else if (ctx->nr == SYS_FUTEX_WAIT)
		read_futex_wait(ctx, &call);
	else if (read_futex_waitv(ctx, &call))
		return 0;
	switch (call.op) {
	case LS_OP_WAIT:
	case LS_OP_WAIT_BITSET:
	case LS_OP_LOCK_PI:
	case LS_OP_LOCK_PI2:
	case LS_OP_WAIT_REQUEUE_PI:
	case LS_OP_WAITV:
		return begin_wait(&call, cpu);
	case LS_OP_REQUEUE:
	case LS_OP_CMP_REQUEUE:
		return begin_requeue(&call, cpu);
	case LS_OP_WAKE_OP:
		release(&call, cpu, call.second_word, 0);
		return release(&call, cpu, call.word, 0);
	case LS_OP_WAKE:
	case LS_OP_WAKE_BITSET:
		return release(&call, cpu, call.word, 0);
	case LS_OP_UNLOCK_PI:
		return release(&call, cpu, call.word, LS_TRAIT_PI);
	case LS_OP_CMP_REQUEUE_PI:
		return release(&call, cpu, call.word, LS_TRAIT_REQUEUE);
	}
	return 0;
}

/* futex_wake and futex_requeue, which have four arguments. */
SEC("tracepoint")
int enter_futex_4(struct ls_sys_enter *ctx)
{
	struct ls_cpu *cpu = this_cpu();
	struct futex_call call = {};

	if (!begin_call(&call, cpu))
		return 0;
	if (ctx->nr == SYS_FUTEX_REQUEUE)
		return read_futex_requeue(ctx, &call) ? 0 : begin_requeue(&call, cpu);
	read_futex_wake(ctx, &call);
	return release(&call, cpu, call.word, 0);
}

#if LS_MODERN
/* Whether the call that ends was futex() to wake somebody and nothing more: two
 * of three are. Looking at its argument costs less than finding the thread. */
static __always_inline int only_woke(const struct ls_sys_exit *ctx)
{
	struct pt_regs *regs;

	if (ctx->nr != SYS_FUTEX)
		return 0;
	regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	switch ((__u32)regs->si & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)) {
	case LS_OP_WAKE:
	case LS_OP_WAKE_BITSET:
	case LS_OP_WAKE_OP:
		return 1;
	}
	return 0;
}
#else
#define only_woke(ctx) 0
#endif

SEC("tracepoint")
int exit_futex(struct ls_sys_exit *ctx)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)pid_tgid;
	struct ls_thread *thread;

	if ((ls_only_tgid && pid_tgid >> 32 != ls_only_tgid) || only_woke(ctx))
		return 0;
	thread = bpf_map_lookup_elem(&threads, &tid);
	if (!thread)
		return 0;
	if (thread->phase == LS_PHASE_WAITING) {
		end_wait(thread, tid, ctx->ret);
		/* Last, so that our own time does not stand in the hold. */
		if (ls_note_wake_ups)
			note_wake_up(tid, thread->word, now_ticks_ns() + ls_wake_ns,
				     ctx->ret != -11 || is_pi_wait(thread->op), !ctx->ret);
		return 0;
	}
	if (thread->requeueing)
		return end_requeue(thread, ctx->ret);
	return 0;
}

/* A thread is about to end: the kernel will wake those who wait for that
 * (pthread_join) and those who wait for a mutex that it still holds, if it is
 * robust. At the system call, not at sched_process_exit, which until 6.15 comes
 * when they are awake already. */
SEC("tracepoint/syscalls/sys_enter_exit")
int enter_exit(struct ls_sys_enter *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct futex_call call = { .pid_tgid = bpf_get_current_pid_tgid(), .shared = 1 };
	__u64 joined = (__u64)BPF_CORE_READ(task, clear_child_tid);
	__u32 tid = (__u32)call.pid_tgid;
	struct ls_cpu *cpu = this_cpu();
	struct ls_thread *thread;

	if (!cpu || !capture_has_begun() || !is_target(task, call.pid_tgid >> 32))
		return 0;
	if (joined)
		release(&call, cpu, joined, LS_TRAIT_THREAD_EXIT);
	thread = bpf_map_lookup_elem(&threads, &tid);
	for (int i = 0; thread && i < LS_MAX_HELD; i++) {
		/* Others than these may have been released long ago. */
		__u64 lock_id = thread->held[i].kind == LS_HOLD_CERTAIN ? thread->held[i].lock : 0;
		struct ls_lock *lock = lock_id ? bpf_map_lookup_elem(&locks, &lock_id) : 0;

		if (!lock)
			continue;
		call.shared = lock->key.type == LS_LOCK_SHARED;
		release(&call, cpu, thread->held[i].word, 0);
	}
	return 0;
}

/* A thread has ended: while waiting, if it was killed. */
SEC("raw_tracepoint/sched_process_exit")
int thread_exit(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct ls_thread *thread = bpf_map_lookup_elem(&threads, &tid);
	__u64 now = now_ticks_ns();

	if (now >= ls_stop_ns)
		return 0;
	/* Whether it is a target still or has been renamed: what there is, goes. */
	if (thread && thread->phase == LS_PHASE_WAITING &&
	    (!thread->before_attach || claim_adopted(tid))) {
		struct ls_lock *lock = bpf_map_lookup_elem(&locks, &thread->lock);

		if (lock && capturing(now)) {
			struct ls_sleep sleep = {
				.lock = thread->lock,
				.from_ns = thread->since_ns,
				.until_ns = now,
				.before_ns = thread->episode_ns,
			};

			book_end(lock, now);
			add_sleep(thread, lock, &sleep);
		}
	}
	if (thread)
		bpf_map_delete_elem(&threads, &tid);
	if (ls_note_wake_ups)
		bpf_map_delete_elem(&pthreads, &tid);
	if (ls_mark_holders)
		bpf_map_delete_elem(&holders, &tid);
	if (tid == tgid)
		bpf_map_delete_elem(&ls_unwind_processes, &tgid);
	return 0;
}

static __always_inline int current_is_target(void)
{
	return is_target(0, bpf_get_current_pid_tgid() >> 32);
}

/* A process becomes another program: its locks are gone, and so is the tid of
 * the thread that did it, which takes its leader's. */
SEC("raw_tracepoint/sched_process_exec")
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	__u32 old_tid = (__u32)ctx->args[1];
	__u32 tid = (__u32)bpf_get_current_pid_tgid();

	if (now_ticks_ns() >= ls_stop_ns)
		return 0;
	bpf_map_delete_elem(&threads, &old_tid);
	bpf_map_delete_elem(&threads, &tid);
	/* Others are met when they wait. */
	if (ls_filter_kind == LS_FILTER_TGIDS && current_is_target())
		notify(process_of(task, tid), LS_NOTICE_EXEC);
	return 0;
}

/* Children of a command that we started belong to it. A child has its parent's
 * mappings, so its stacks can be walked by the parent's list of them until user
 * space has made its own. */
SEC("raw_tracepoint/sched_process_fork")
int process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *child = (void *)ctx->args[1];
	__u32 parent = bpf_get_current_pid_tgid() >> 32;
	__u32 tgid = BPF_CORE_READ(child, tgid);
	struct ls_unwind_process *mappings;
	__u8 one = 1;

	if (tgid == parent || !current_is_target())
		return 0;
	if (ls_filter_kind == LS_FILTER_TGIDS) {
		if (!ls_follow_forks)
			return 0;
		bpf_map_update_elem(&target_tgids, &tgid, &one, BPF_ANY);
	}
	mappings = bpf_map_lookup_elem(&ls_unwind_processes, &parent);
	if (mappings) {
		struct ls_unwind_process copy = *mappings;

		bpf_map_update_elem(&ls_unwind_processes, &tgid, &copy, BPF_NOEXIST);
	}
	return 0;
}

static __always_inline int is_asleep(struct task_struct *task)
{
	return state_of(task) & 1 /* TASK_INTERRUPTIBLE */;
}

/* Whether the task sleeps in a futex call; if so, fills in `blocked`. */
static __noinline int find_blocked(struct task_struct *task, struct ls_blocked *blocked)
{
	struct pt_regs *regs = user_regs_of(task);
	unsigned long nr = 0, args[8];

	if (bpf_probe_read_kernel(&nr, sizeof(nr), &regs->orig_ax) ||
	    (nr != SYS_FUTEX && nr != SYS_FUTEX_WAIT))
		return 0;
	bpf_probe_read_kernel(&blocked->ip, sizeof(blocked->ip), &regs->ip);
	bpf_probe_read_kernel(&blocked->sp, sizeof(blocked->sp), &regs->sp);
	bpf_probe_read_kernel(&blocked->bp, sizeof(blocked->bp), &regs->bp);
	/* r11, r10, r9, r8, ax, cx, dx, si; di is next */
	if (bpf_probe_read_kernel(args, sizeof(args), &regs->r11) ||
	    bpf_probe_read_kernel(&blocked->args[0], sizeof(__u64), &regs->di))
		return 0;
	blocked->nr = nr;
	blocked->args[1] = args[7];
	blocked->args[2] = args[6];
	blocked->args[3] = args[1];
	if (nr == SYS_FUTEX_WAIT) {
		/* futex_wait(uaddr, val, mask, flags, timeout) in futex's terms */
		blocked->args[1] = LS_OP_WAIT_BITSET | (args[1] & FUTEX2_PRIVATE);
		blocked->args[2] = args[7];
		blocked->args[3] = args[3];
	}
	return 1;
}

/* Whether it sleeps in the very call that it was found in. */
static __noinline int still_blocked(struct task_struct *task, const struct ls_blocked *found)
{
	struct ls_blocked now = {};

	return is_asleep(task) && find_blocked(task, &now) && now.sp == found->sp &&
	       now.args[0] == found->args[0];
}

/* Enters a thread that was asleep before we attached. Its system call's end may
 * come at this very moment on another CPU; whoever finds the thread awake after
 * entering it takes it out again. */
static __noinline int adopt(struct task_struct *task, const struct ls_blocked *blocked)
{
	struct futex_call call = {
		.word = blocked->args[0],
		.op = blocked->args[1] & ~(__u64)(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME),
		.value = (__u32)blocked->args[2],
		.timed = blocked->args[3] != 0,
	};
	__u64 process = blocked->process, now = now_ticks_ns(), id;
	int is_shared = !(blocked->args[1] & FUTEX_PRIVATE_FLAG);
	struct ls_lock_key key = {};
	struct ls_thread *thread;
	__u32 tid = blocked->tid;
	struct ls_lock *lock;

	if (call.op != LS_OP_WAIT && call.op != LS_OP_WAIT_BITSET && call.op != LS_OP_LOCK_PI &&
	    call.op != LS_OP_LOCK_PI2)
		return 0;
	id = find_lock_key(task, process, call.word, is_shared, &key);
	lock = find_or_make_lock(id, &key, process, call.word);
	if (!lock || bpf_map_update_elem(&threads, &tid, &zero_thread, BPF_NOEXIST) != 0)
		return 0;
	thread = bpf_map_lookup_elem(&threads, &tid);
	if (!thread)
		return 0;
	set_bits_u32(&lock->traits, traits_of(&call));
	set_thread_bit(lock->waiter_threads, tid);
	meet_process(process, now);
	book_begin(lock, now);
	thread->process = process;
	thread->lock = id;
	thread->word = call.word;
	thread->since_ns = now;
	thread->value = call.value;
	thread->op = call.op;
	thread->before_attach = 1;
	*(volatile __u8 *)&thread->phase = LS_PHASE_WAITING;
	if (!still_blocked(task, blocked) && claim_adopted(tid)) {
		thread->phase = LS_PHASE_IDLE;
		book_end(lock, now);
	}
	return 0;
}

/* Lists the target's threads that sleep in a futex call, with the registers to
 * unwind them by. */
SEC("iter/task")
int blocked_threads(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct ls_blocked blocked = {};

	if (!task || BPF_CORE_READ(task, flags) & 0x00200000 /* PF_KTHREAD */ || !is_asleep(task))
		return 0;
	blocked.tid = BPF_CORE_READ(task, pid);
	blocked.tgid = BPF_CORE_READ(task, tgid);
	if (ls_filter_kind == LS_FILTER_CGROUP || !is_target(task, blocked.tgid))
		return 0;
	blocked.process = process_of(task, blocked.tgid);
	if (!find_blocked(task, &blocked))
		return 0;
	if (ls_adopt_waits)
		adopt(task, &blocked);
	bpf_seq_write(ctx->meta->seq, &blocked, sizeof(blocked));
	return 0;
}
