/* Contract between the census (bpf/census.bpf.c) and user space: what the task
 * iterator says of every thread of a process. Compiles as C and C++. */
#pragma once

#include <linux/types.h>

#include "unwind.h"

enum ls_census_flag {
	LS_CENSUS_ON_CPU = 1 << 0,      /* in user space or in the kernel, right now */
	LS_CENSUS_EXITING = 1 << 1,     /* has ended; there is no stack any more */
	LS_CENSUS_32_BIT = 1 << 2,      /* runs 32-bit code */
	LS_CENSUS_KERNEL_ONLY = 1 << 3, /* io_uring's workers: never in user space */
};

struct ls_census_thread {
	__u32 tid;
	__u32 tgid;
	__u32 inner_tid; /* as the process itself sees it, in its PID namespace */
	__u32 flags;     /* enum ls_census_flag */
	__u32 state;     /* the kernel's TASK_*: include/linux/sched.h */
	__u32 cpu;       /* that it is or was on */
	/* Two records with the same process, switches and registers, both off the
	 * CPU: the thread did not run in between. */
	__u64 started_ns; /* of the process, since boot */
	__u64 execs;      /* of the process */
	__u64 switches;   /* how often it left a CPU */
	struct ls_user_regs regs; /* of its last entry into the kernel */
	__s64 call;       /* the system call that it is in; -1: none */
	__u64 args[6];    /* of the call */
	__u64 ending;     /* address of the futex that the kernel wakes at its end */
	__u64 asleep_ns;  /* time off the CPU, and what the CPU's clock left out; 0: not known */
	char comm[16];
};
LS_UNWIND_ASSERT(sizeof(struct ls_census_thread) == 160, "a thread is 160 bytes");
