/* The census: where every thread of a process is right now. A program of its
 * own, small enough to be loaded within milliseconds. Built twice, as
 * futex.bpf.c is. */
#include "kernel_types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "census.h"
#include "task_regs.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* include/linux/sched.h */
#define PF_IO_WORKER 0x10
#define LS_ASLEEP 3     /* TASK_INTERRUPTIBLE, TASK_UNINTERRUPTIBLE */
#define LS_USER_CS 0x33 /* __USER_CS: 64-bit code */

/* Whose threads are wanted, for kernels whose iterators go over all tasks (they
 * can be held to one process since 6.1: f0d74c4da1f0). */
volatile __u32 ls_census_tgid;

/* What the clock of tasks leaves out, so far, on the CPU where we were when we
 * looked at ourselves last: see off_cpu_ns(). */
volatile __s64 ls_census_left_out;

static __always_inline __u32 cpu_of(struct task_struct *task)
{
	if (bpf_core_field_exists(task->thread_info.cpu))
		return BPF_CORE_READ(task, thread_info.cpu);
	return BPF_CORE_READ(task, cpu);
}

/* How long a task has been off the CPU. The scheduler notes when it accounted for
 * a task's time last: that is when it went to sleep; by the CPU's clock of tasks,
 * which may leave out what interrupts and other virtual machines took (user space
 * takes that off). When we came onto the CPU it noted for us by the full clock,
 * and by that of tasks: user space sleeps just before it asks. */
static __always_inline __u64 off_cpu_ns(struct task_struct *task)
{
	struct task_struct *self = (void *)bpf_get_current_task();
	__u64 accounted = BPF_CORE_READ(task, se.exec_start), now;

	if (!bpf_core_field_exists(task->sched_info.last_arrival))
		return 0;
	now = BPF_CORE_READ(self, sched_info.last_arrival);
	if (task == self)
		ls_census_left_out = now - accounted;
	/* It is set to 0 when the task changes CPUs. */
	if (!accounted)
		return 0;
	return (__s64)(now - accounted) > 0 ? now - accounted : 0;
}

static __always_inline __u32 inner_tid_of(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u64 at = bpf_core_field_offset(struct pid, numbers) +
		   BPF_CORE_READ(pid, level) * bpf_core_type_size(struct upid) +
		   bpf_core_field_offset(struct upid, nr);
	__u32 tid = 0;

	if (pid)
		bpf_probe_read_kernel(&tid, sizeof(tid), (void *)pid + at);
	return tid;
}

static __always_inline void read_registers(struct task_struct *task, struct ls_census_thread *out)
{
	struct pt_regs *at = user_regs_of(task);
	struct pt_regs regs = {};

	if (bpf_probe_read_kernel(&regs, sizeof(regs), at))
		return;
	if (regs.cs != LS_USER_CS) {
		out->flags |= LS_CENSUS_32_BIT;
		return;
	}
	out->regs.ip = regs.ip;
	out->regs.sp = regs.sp;
	out->regs.bp = regs.bp;
	out->call = (__s64)regs.orig_ax;
	out->args[0] = regs.di;
	out->args[1] = regs.si;
	out->args[2] = regs.dx;
	out->args[3] = regs.r10;
	out->args[4] = regs.r8;
	out->args[5] = regs.r9;
}

SEC("iter/task")
int census(struct bpf_iter__task *ctx)
{
	struct ls_census_thread thread = { .call = -1 };
	struct task_struct *task = ctx->task, *leader;

	if (!task)
		return 0;
	thread.tgid = BPF_CORE_READ(task, tgid);
	if (thread.tgid != ls_census_tgid)
		return 0;
	leader = BPF_CORE_READ(task, group_leader);
	thread.tid = BPF_CORE_READ(task, pid);
	thread.inner_tid = inner_tid_of(task);
	thread.started_ns = BPF_CORE_READ(leader, start_boottime);
	thread.execs = BPF_CORE_READ(leader, self_exec_id);
	thread.ending = (__u64)BPF_CORE_READ(task, clear_child_tid);
	bpf_core_read(&thread.comm, sizeof(thread.comm), &task->comm);
	/* The count first: it may leave the CPU, or come back, at any moment. */
	thread.switches = BPF_CORE_READ(task, nvcsw) + BPF_CORE_READ(task, nivcsw);
	thread.state = state_of(task);
	thread.asleep_ns = off_cpu_ns(task);
	if (BPF_CORE_READ(task, on_cpu))
		thread.flags |= LS_CENSUS_ON_CPU;
	if ((thread.flags & LS_CENSUS_ON_CPU) || !(thread.state & LS_ASLEEP))
		thread.asleep_ns = 0;
	thread.cpu = cpu_of(task);
	if (BPF_CORE_READ(task, exit_state))
		thread.flags |= LS_CENSUS_EXITING;
	else if (BPF_CORE_READ(task, flags) & PF_IO_WORKER)
		thread.flags |= LS_CENSUS_KERNEL_ONLY;
	else
		read_registers(task, &thread);
	bpf_seq_write(ctx->meta->seq, &thread, sizeof(thread));
	return 0;
}
