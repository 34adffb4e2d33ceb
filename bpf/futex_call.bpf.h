/* Futex calls: their arguments, and what these tell about the word. */
#pragma once

#include "holds.bpf.h"

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
	__u64 pid_tgid;
	__u64 word;
	__u64 second_word; /* waitv: address of the array */
	__u32 op; /* enum ls_op */
	__u32 value;
	__u32 shared;
	__u32 timed;
	__u32 limit; /* requeue: how many may be woken; waitv: elements */
	__u64 now;   /* 0: the clock is yet to be read */
};

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
