/* The holder tier: what the scheduler did with threads that hold a contended
 * lock, where they blocked, and what they did on the CPU. Of all other threads it
 * looks at the tid. Built twice, as futex.bpf.c is. */
#include "holder_state.bpf.h"
#include "mutex_words.bpf.h"
#include "stacks.bpf.h"
#include "task_regs.bpf.h"

char LICENSE[] SEC("license") = "GPL";

LS_HASH(activities, struct ls_activity_key, struct ls_activity_row, LS_ACTIVITY_ROWS);

/* Its odds are its own: see draw_stack(). */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ls_cpu);
} holder_cpus SEC(".maps");

static const struct ls_activity_row zero_activity = {};

/* Whether the current thread, which holds the mark, has the lock. Attempts at a mutex
 * turn out to have been successful. */
static __always_inline int has_lock(struct ls_mark *mark)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();

	if (!mark->maybe)
		return 1;
	if (!LS_MARK_LIBC(mark->maybe) ||
	    !read_mutex(mark->lock, LS_MARK_LIBC(mark->maybe), tid).mine)
		return 0;
	mark->maybe = 0;
	return 1;
}

/* Charges the current thread's activity, from now on, to the lock that it got last. */
static __always_inline void charge(struct ls_holder *holder)
{
	for (int i = 0; i < LS_MAX_MARKS; i++) {
		if (i >= holder->n)
			break;
		if (has_lock(&holder->marks[i])) {
			holder->charged = holder->marks[i].lock;
			holder->charged_kind = holder->marks[i].kind;
		}
	}
}

static __always_inline struct ls_activity_row *activity_of(const struct ls_holder *holder,
							   __u64 stack, __s32 call)
{
	struct ls_activity_key key = {
		.process = holder->process,
		.lock = holder->charged,
		.stack = stack,
		.kind = holder->charged_kind,
		.call = call,
	};
	struct ls_activity_row *row;

	if (!key.kind)
		return 0;
	row = find_or_make(&activities, &key, &zero_activity);
	if (!row)
		count(LS_LOST_ACTIVITIES_FULL);
	return row;
}

/* Whether the stack where it blocks is to be taken; if so, the inverse of the
 * probability of that. All are equal: for how long is not known yet. */
static __always_inline __u32 draw_stack(__u64 now)
{
	__u32 zero = 0, random;
	struct ls_cpu *cpu = bpf_map_lookup_elem(&holder_cpus, &zero);
	struct ls_odds odds;

	if (!cpu)
		return 0;
	odds = cpu->odds;
	random = draw_random(cpu);
	ls_count_event(cpu, ls_stack_rate, 1, now);
	if (!ls_is_sampled(1, odds, random))
		return 0;
	return ls_inverse_of(ls_probability_of(1, odds));
}

static __always_inline __s32 current_call(struct task_struct *task)
{
	struct pt_regs *regs = user_regs_of(task);
	long call = LS_CALL_FAULT;

	bpf_probe_read_kernel(&call, sizeof(call), &regs->orig_ax);
	return call < 0 ? LS_CALL_FAULT : (__s32)call;
}

static __always_inline void leave_cpu(struct task_struct *task, int preempted, __u64 now)
{
	__u32 tid = task->pid;
	struct ls_holder *holder = bpf_map_lookup_elem(&holders, &tid);

	if (!holder || !holder->n)
		return;
	holder->off_since_ns = now;
	/* One that is woken before it has left stays runnable. */
	if (preempted || !state_of(task)) {
		holder->state = LS_HOLDER_RUNNABLE;
		return;
	}
	holder->inverse = draw_stack(now);
	holder->charged_kind = 0;
	if (holder->inverse) {
		charge(holder);
		holder->call = current_call(task);
		holder->stack = take_stack(holder->process);
	}
	holder->state = LS_HOLDER_BLOCKED;
}

static __always_inline void end_block(struct ls_holder *holder, __u64 now)
{
	__u64 blocked_ns = now - holder->off_since_ns;
	struct ls_activity_row *row;

	holder->blocked_ns += blocked_ns;
	holder->off_since_ns = now;
	if (!holder->inverse)
		return;
	row = activity_of(holder, holder->stack, holder->call);
	if (row) {
		__sync_fetch_and_add(&row->count, 1);
		__sync_fetch_and_add(&row->total_ns, blocked_ns);
		__sync_fetch_and_add(&row->weight_ns, ls_weigh(blocked_ns, holder->inverse));
	}
}

static __always_inline void enter_cpu(__u32 tid, __u64 now)
{
	struct ls_holder *holder = bpf_map_lookup_elem(&holders, &tid);

	if (!holder || !holder->n)
		return;
	if (holder->state == LS_HOLDER_RUNNABLE)
		holder->runnable_ns += now - holder->off_since_ns;
	else if (holder->state == LS_HOLDER_BLOCKED)
		end_block(holder, now);
	holder->state = LS_HOLDER_RUNNING;
}

/* (bool preempt, struct task_struct *prev, struct task_struct *next, ...) */
SEC("tp_btf/sched_switch")
int holder_switch(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];
	__u64 now = bpf_ktime_get_ns();

	if (prev->pid)
		leave_cpu(prev, (int)ctx[0], now);
	if (next->pid)
		enter_cpu(next->pid, now);
	return 0;
}

/* On the run queue again. Comes after the switch away from it, unlike sched_waking.
 * (struct task_struct *) */
SEC("tp_btf/sched_wakeup")
int holder_wakeup(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u32 tid = task->pid;
	struct ls_holder *holder = bpf_map_lookup_elem(&holders, &tid);

	if (!holder || !holder->n || holder->state != LS_HOLDER_BLOCKED)
		return 0;
	end_block(holder, bpf_ktime_get_ns());
	holder->state = LS_HOLDER_RUNNABLE;
	return 0;
}

SEC("perf_event")
int holder_sample(void *ctx)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct ls_holder *holder = bpf_map_lookup_elem(&holders, &tid);
	struct ls_activity_row *row;

	if (!holder || !holder->n)
		return 0;
	holder->charged_kind = 0;
	charge(holder);
	row = activity_of(holder, take_stack(holder->process), LS_CALL_RUNNING);
	if (row) {
		__sync_fetch_and_add(&row->count, 1);
		__sync_fetch_and_add(&row->weight_ns, 1);
	}
	return 0;
}
