/* Taking a user stack and keeping it once. The one place that knows how stacks
 * are walked. */
#pragma once

#include "maps.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ls_stack);
} stack_scratch SEC(".maps");

static __always_inline __u64 hash_stack(const struct ls_stack *stack)
{
	__u64 hash = ls_hash_seed ^ stack->process;

	for (__u32 i = 0; i < LS_MAX_FRAMES; i++) {
		if (i >= stack->depth)
			break;
		hash = mix(hash, stack->ips[i]);
	}
	return hash ? hash : 1;
}

/* Takes the current task's user stack and returns its key in `stacks`, 0 if
 * it could not be kept. The scratch space is per CPU: only for programs that
 * run with preemption off (classic tracepoints do). */
static __noinline __u64 take_stack(void *ctx, __u64 process)
{
	__u32 zero = 0;
	struct ls_stack *stack = bpf_map_lookup_elem(&stack_scratch, &zero);
	long bytes;
	__u64 key;

	if (!stack)
		return 0;
	count(LS_COUNT_STACKS);
	bytes = bpf_get_stack(ctx, stack->ips, sizeof(stack->ips), BPF_F_USER_STACK);
	stack->process = process;
	stack->depth = bytes > 0 ? (__u32)bytes / 8 : 0;
	stack->flags = LS_STACK_GUESSED;
	key = hash_stack(stack);
	if (!bpf_map_lookup_elem(&stacks, &key) &&
	    bpf_map_update_elem(&stacks, &key, stack, BPF_NOEXIST) != 0 &&
	    !bpf_map_lookup_elem(&stacks, &key)) {
		count(LS_LOST_STACK_TABLE_FULL);
		return 0;
	}
	return key;
}
