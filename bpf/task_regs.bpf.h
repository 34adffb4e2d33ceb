/* The registers with which a task entered the kernel last. For one that is off
 * the CPU these are the registers that it will go on with. */
#pragma once

#if LS_MODERN
/* Since 5.15 (dd6e10fbd9fb). */
#define user_regs_of(task) ((struct pt_regs *)bpf_task_pt_regs(task))
#else
/* At the top of the kernel stack, which is 16 KiB on x86-64. */
#define user_regs_of(task) \
	((struct pt_regs *)(BPF_CORE_READ(task, stack) + 16384 - sizeof(struct pt_regs)))
#endif

/* TASK_*: include/linux/sched.h. */
static __always_inline __u32 state_of(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return BPF_CORE_READ(task, __state);
	return BPF_CORE_READ((struct task_struct___before_5_14 *)task, state);
}
