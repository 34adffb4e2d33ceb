/* Taking the current task's user stack and keeping it once. The one place that
 * knows how stacks are walked. */
#pragma once

#include "maps.bpf.h"
#include "unwind.bpf.h"

static __always_inline __u64 hash_frames(const struct ls_frames *frames, __u64 process)
{
	/* Frames that were guessed, before there were tables, do not pass for the
	 * same frames known, nor spoil them. */
	__u64 hash = mix(ls_hash_seed ^ process, frames->flags);

	for (__u32 i = 0; i < LS_UNWIND_MAX_FRAMES; i++) {
		if (i >= frames->n)
			break;
		hash = mix(hash, frames->ips[i]);
	}
	return hash ? hash : 1;
}

static __always_inline __u64 keep_stack(const struct ls_frames *frames, __u64 process)
{
	struct ls_stack_key key = {
		.hash = hash_frames(frames, process),
		.process = process,
	};

	if (bpf_map_lookup_elem(&stacks, &key))
		return key.hash;
	if (bpf_map_update_elem(&stacks, &key, frames, BPF_NOEXIST) == 0 ||
	    bpf_map_lookup_elem(&stacks, &key))
		return key.hash;
	count(LS_LOST_STACK_TABLE_FULL);
	return 0;
}

/* Takes the stack with which the current task entered the kernel. Returns what
 * rows refer to it by; 0 if there is none, or no room.
 * Global, so that the verifier looks at it once in each program and not once
 * on every way to it: loading all programs takes a third of the time. */
__noinline __u64 take_stack(__u64 process)
{
	struct ls_user_regs regs = {};
	struct ls_walk *walk;
	__u64 hash;

	if (!ls_user_regs_current(&regs))
		return 0;
	walk = ls_unwind_begin();
	if (!walk) {
		count(LS_LOST_STACK_BUSY);
		return 0;
	}
	count(LS_COUNT_STACKS);
	ls_unwind_run(walk, &regs, LS_PROCESS_TGID(process));
	hash = keep_stack(&walk->out, process);
	ls_unwind_end(walk);
	return hash;
}
