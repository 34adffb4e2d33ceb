/* Walking user stacks in the kernel, with the tables that user space provides
 * (userspace/unwind). Maps and entry points; the walk itself is unwind_walk.h.
 *
 * One frame is one call of a global function, which the verifier checks once:
 * about 4,000 instructions processed for 127 frames, on every kernel since
 * 5.10. (Inlined in a loop: 350,000 and more.) Its argument is a scalar,
 * because global functions take pointers only since 5.12.
 *
 * Cost of a walk at a system call (tests/bpf/unwind, kernel 6.18): 12 frames
 * 0.92 us, 32 frames 1.9 us, on top of 0.15 us for a bare tracepoint. */
#pragma once

#include "kernel_types.h"

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "unwind.h"

/* Inner maps are identical, so user space can add them as the tables grow.
 * One value of 1 MiB, not 256 of 4 KiB: a search needs one lookup, and none of
 * its steps can cross into another value. */
struct ls_unwind_pool_segment {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	/* key_size and value_size, because libbpf 1.1 fails on __type(value, struct)
	 * in an inner map. */
	__uint(value_size, LS_POOL_SEGMENT_BYTES);
	__uint(map_flags, BPF_F_MMAPABLE);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, LS_POOL_MAX_SEGMENTS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__array(values, struct ls_unwind_pool_segment);
} ls_unwind_pool SEC(".maps");

/* One value as well: struct ls_unwind_rule[LS_UNWIND_MAX_RULES]. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, LS_UNWIND_MAX_RULES * sizeof(struct ls_unwind_rule));
	__uint(map_flags, BPF_F_MMAPABLE);
} ls_unwind_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LS_UNWIND_MAX_PROCESSES);
	__type(key, __u32);
	__type(value, struct ls_unwind_process);
} ls_unwind_processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LS_UNWIND_MAX_REQUESTS);
	__type(key, __u32);
	__type(value, struct ls_unwind_request);
} ls_unwind_requests SEC(".maps");

struct ls_walk;
static __always_inline const __u32 *ls_walk_segment(struct ls_walk *w, __u32 index)
{
	__u32 zero = 0;
	void *segment = bpf_map_lookup_elem(&ls_unwind_pool, &index);

	return segment ? bpf_map_lookup_elem(segment, &zero) : 0;
}

static __always_inline const struct ls_unwind_rule *ls_walk_rule(struct ls_walk *w, __u64 index)
{
	__u32 zero = 0;
	struct ls_unwind_rule *rules = bpf_map_lookup_elem(&ls_unwind_rules, &zero);

	if (!rules)
		return 0;
	asm volatile("" : "+r"(index)); /* or the mask may go */
	return &rules[index & (LS_UNWIND_MAX_RULES - 1)];
}

static __always_inline int ls_walk_read_user(struct ls_walk *w, void *to, __u32 bytes, __u64 address)
{
	return bpf_probe_read_user(to, bytes, (const void *)address);
}

static __always_inline void ls_walk_ask(struct ls_walk *w, __u64 address);

#define LS_WALK_INLINE static __always_inline
#include "unwind_walk.h"

static __always_inline void ls_unwind_ask(__u32 tgid, __u64 address)
{
	struct ls_unwind_request request = { .asked_ns = bpf_ktime_get_ns(), .address = address };

	/* A request that is still there is enough, and a lookup is all that the
	 * next stacks of this process pay. */
	if (!bpf_map_lookup_elem(&ls_unwind_requests, &tgid))
		bpf_map_update_elem(&ls_unwind_requests, &tgid, &request, BPF_NOEXIST);
}

static __always_inline void ls_walk_ask(struct ls_walk *w, __u64 address)
{
	ls_unwind_ask(w->tgid, address);
}

/* Walks that may be under way on one CPU at a time: a task, another that
 * preempted it (uprobes run preemptible since 5.18), a perf_event interrupt. */
#define LS_UNWIND_SLOTS 4

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LS_UNWIND_SLOTS);
	__type(key, __u32);
	__type(value, struct ls_walk);
} ls_unwind_scratch SEC(".maps");

/* Takes a slot of this CPU's scratch space; NULL if none is free. */
static __always_inline struct ls_walk *ls_unwind_begin(void)
{
	struct ls_walk *w;

	for (__u32 slot = 0; slot < LS_UNWIND_SLOTS; slot++) {
		__u32 key = slot;

		w = bpf_map_lookup_elem(&ls_unwind_scratch, &key);
		if (!w)
			return 0;
#if LS_MODERN
		if (__sync_val_compare_and_swap(&w->busy, 0, 1) != 0)
			continue;
#else
		/* Before 5.12 there are no atomics that return, and programs run with
		 * preemption off: whoever interrupts us here is done with the slot
		 * before we go on. */
		if (*(volatile __u32 *)&w->busy)
			continue;
		*(volatile __u32 *)&w->busy = 1;
#endif
		w->slot = slot;
		return w;
	}
	return 0;
}

/* Gives the slot back; `w` and its frames must not be used any more. */
static __always_inline void ls_unwind_end(struct ls_walk *w)
{
	barrier();
	*(volatile __u32 *)&w->busy = 0;
}

/* One frame of the walk in slot `slot` of this CPU. Global, not static: see
 * the head of the file. */
__noinline int ls_unwind_step(__u32 slot)
{
	struct ls_walk *w = bpf_map_lookup_elem(&ls_unwind_scratch, &slot);

	return w ? ls_walk_step(w) : LS_WALK_STOP;
}

struct mm_struct___unwind {
	unsigned long start_stack;
	unsigned long exec_vm;
} LS_KERNEL_TYPE;

enum { LS_PROCESS_OTHER, LS_PROCESS_CHANGED, LS_PROCESS_CURRENT };

/* Whether what is known of the current task's process still holds: the same
 * program, with as much code mapped as when user space looked. A library that
 * takes the place of another would be walked by the other's rows, to a stack
 * that looks whole; unless the two are of one size, this tells. */
static __always_inline int ls_unwind_compare(const struct ls_unwind_process *process)
{
	__u64 start_stack, exec_pages;
#if LS_MODERN
	struct task_struct *task = bpf_get_current_task_btf();
	struct mm_struct___unwind *mm = (void *)task->mm;

	if (!mm)
		return LS_PROCESS_OTHER;
	start_stack = mm->start_stack;
	exec_pages = mm->exec_vm;
#else
	struct task_struct *task = (void *)bpf_get_current_task();
	struct mm_struct___unwind *mm = (void *)BPF_CORE_READ(task, mm);

	start_stack = BPF_CORE_READ(mm, start_stack);
	exec_pages = BPF_CORE_READ(mm, exec_vm);
#endif
	if (process->start_stack && process->start_stack != start_stack)
		return LS_PROCESS_OTHER;
	if (process->exec_pages && process->exec_pages != exec_pages)
		return LS_PROCESS_CHANGED;
	return LS_PROCESS_CURRENT;
}

/* Walks the user stack of the current task, which belongs to process `tgid`
 * (as its user space names it: the initial PID namespace), into w->out.
 * Never fails: w->out.flags says how far it came. */
static __always_inline void ls_unwind_run(struct ls_walk *w, const struct ls_user_regs *regs, __u32 tgid)
{
	struct ls_unwind_process *process;
	__u32 slot = w->slot;
	int state = LS_PROCESS_OTHER;

	ls_walk_start(w, regs, tgid);
	process = bpf_map_lookup_elem(&ls_unwind_processes, &tgid);
	if (process)
		state = ls_unwind_compare(process);
	if (process && state != LS_PROCESS_OTHER) {
		/* Most of what has changed is new code elsewhere. */
		w->mappings = process->mappings;
		w->n_mappings = process->n_mappings;
	}
	if (state != LS_PROCESS_CURRENT) {
		w->out.flags = LS_UNWIND_NO_TABLE;
		ls_unwind_ask(tgid, 0);
	}
	/* One more than frames: the last call finds that it is too many. */
	for (int i = 0; i <= LS_UNWIND_MAX_FRAMES; i++)
		if (ls_unwind_step(slot) != LS_WALK_ON)
			break;
}

/* The same with a copy of the frames in `out`. For callers that do not want to
 * work on the scratch space. Returns the number of frames. */
static __always_inline int ls_unwind_user(const struct ls_user_regs *regs, __u32 tgid, struct ls_frames *out)
{
	struct ls_walk *w = ls_unwind_begin();
	__u32 n;

	if (!w) {
		out->n = 0;
		out->flags = LS_UNWIND_BUSY;
		return 0;
	}
	ls_unwind_run(w, regs, tgid);
	n = w->out.n;
	if (n > LS_UNWIND_MAX_FRAMES)
		n = LS_UNWIND_MAX_FRAMES;
	out->n = n;
	out->flags = w->out.flags;
	asm volatile("" : "+r"(n));
	bpf_probe_read_kernel(out->ips, (n & LS_UNWIND_MAX_FRAMES) * sizeof(__u64), w->out.ips);
	ls_unwind_end(w);
	return out->n;
}

/* Registers as saved by an interrupt or a probe, if they are those of 64-bit
 * user code. */
static __always_inline int ls_user_regs_take(struct ls_user_regs *out, __u64 ip, __u64 sp, __u64 bp, __u64 cs)
{
	/* __USER_CS (arch/x86/include/asm/segment.h); 32-bit tasks have 0x23. */
	if (cs != 0x33 || !ip)
		return 0;
	out->ip = ip;
	out->sp = sp;
	out->bp = bp;
	return 1;
}

/* The user registers of the current task at its entry into the kernel. They
 * are unchanged until it leaves, so they do at syscall exits and in sched_switch
 * too. Returns 0 for kernel threads and 32-bit tasks. */
static __always_inline int ls_user_regs_current(struct ls_user_regs *out)
{
#if LS_MODERN
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs;

	if (!task->mm)
		return 0;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	return ls_user_regs_take(out, regs->ip, regs->sp, regs->bp, regs->cs);
#else
	/* bpf_task_pt_regs came with 5.15 (dd6e10fbd9fb). task_pt_regs() of x86-64
	 * without KASAN and FRED: THREAD_SIZE is 16 KiB, no padding. */
	struct task_struct *task = (void *)bpf_get_current_task();
	struct { unsigned long ip, cs, flags, sp; } tail;
	unsigned long bp = 0;
	struct pt_regs *regs;

	if (!BPF_CORE_READ(task, mm))
		return 0;
	regs = (void *)((char *)BPF_CORE_READ(task, stack) + 16384 - sizeof(*regs));
	/* Not the whole struct: callers' 512 bytes of stack are short already. */
	if (bpf_probe_read_kernel(&tail, sizeof(tail), &regs->ip) ||
	    bpf_probe_read_kernel(&bp, sizeof(bp), &regs->bp))
		return 0;
	return ls_user_regs_take(out, tail.ip, tail.sp, bp, tail.cs);
#endif
}
