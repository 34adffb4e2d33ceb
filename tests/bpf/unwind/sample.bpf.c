/* Takes user stacks at system calls and at clock ticks. */
#include "unwind.bpf.h"

#include "sample.h"

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 target_tgid = 0;
const volatile __u32 with_stack = 1;
__u64 taken = 0, lost = 0, walk_ns = 0, frames = 0;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} samples SEC(".maps");

struct pt_regs_words {
	__u64 word[21];
};

static __always_inline int take(__u32 kind, const struct pt_regs *from)
{
	__u64 id = bpf_get_current_pid_tgid(), at;
	struct pt_regs regs;
	struct ls_user_regs user;
	struct sample *sample;

	if (id >> 32 != target_tgid)
		return 0;
	if (from) {
		__builtin_memcpy(&regs, from, sizeof(regs));
		if (!ls_user_regs_take(&user, regs.ip, regs.sp, regs.bp, regs.cs))
			return 0;
	} else {
		if (!ls_user_regs_current(&user))
			return 0;
#if LS_MODERN
		bpf_probe_read_kernel(&regs, sizeof(regs),
				      (void *)bpf_task_pt_regs(bpf_get_current_task_btf()));
#else
		struct task_struct *task = (void *)bpf_get_current_task();
		bpf_probe_read_kernel(&regs, sizeof(regs), BPF_CORE_READ(task, stack) + 16384 - sizeof(regs));
#endif
	}
	sample = bpf_ringbuf_reserve(&samples, sizeof(*sample), 0);
	if (!sample) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	sample->tgid = id >> 32;
	sample->tid = (__u32)id;
	sample->kind = kind;
	__builtin_memcpy(sample->regs, &regs, sizeof(regs));
	ls_unwind_user(&user, id >> 32, &sample->frames);

	/* In aligned chunks, so that none crosses the end of the stack. */
	at = user.sp & ~(__u64)(SAMPLE_CHUNK - 1);
	sample->stack_start = at;
	sample->stack_bytes = 0;
	for (int i = 0; i < SAMPLE_STACK_BYTES / SAMPLE_CHUNK; i++) {
		if (bpf_probe_read_user(sample->stack + i * SAMPLE_CHUNK, SAMPLE_CHUNK, (void *)at))
			break;
		at += SAMPLE_CHUNK;
		sample->stack_bytes += SAMPLE_CHUNK;
	}
	bpf_ringbuf_submit(sample, 0);
	__sync_fetch_and_add(&taken, 1);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit")
int at_syscall(void *context)
{
	return take(SAMPLE_SYSCALL, 0);
}

struct clock_context {
	struct pt_regs regs;
};

SEC("perf_event")
int at_clock(struct clock_context *context)
{
	struct pt_regs regs;

	/* Word by word: the context can't be passed to helpers. */
	if (context->regs.cs != 0x33)
		return take(SAMPLE_CLOCK, 0);
#define COPY(name) regs.name = context->regs.name
	COPY(r15); COPY(r14); COPY(r13); COPY(r12); COPY(bp); COPY(bx); COPY(r11); COPY(r10);
	COPY(r9); COPY(r8); COPY(ax); COPY(cx); COPY(dx); COPY(si); COPY(di); COPY(orig_ax);
	COPY(ip); COPY(cs); COPY(flags); COPY(sp); COPY(ss);
	return take(SAMPLE_CLOCK, &regs);
}

/* The cost of a walk: no copy, no report. */
SEC("tracepoint/syscalls/sys_exit")
int cost_count(void *context)
{
	if (bpf_get_current_pid_tgid() >> 32 == target_tgid)
		__sync_fetch_and_add(&taken, 1);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit")
int cost_walk(void *context)
{
	struct ls_user_regs user;
	struct ls_walk *w;
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (tgid != target_tgid)
		return 0;
	__sync_fetch_and_add(&taken, 1);
	if (!ls_user_regs_current(&user))
		return 0;
	w = ls_unwind_begin();
	if (!w)
		return 0;
	ls_unwind_run(w, &user, tgid);
	__sync_fetch_and_add(&frames, w->out.n);
	ls_unwind_end(w);
	return 0;
}
