/* Threads: what is kept of each while it waits and holds. */
#pragma once

#include "tasks.bpf.h"

static const struct ls_thread zero_thread = {};

static __always_inline int capturing(__u64 now)
{
	return now >= ls_start_ns && now < ls_stop_ns;
}

/* Before the capture no thread may be known: those asleep are yet to be found. */
static __always_inline int capture_has_begun(void)
{
	return ls_stop_ns != 0;
}

static __noinline struct ls_thread *make_thread(__u64 pid_tgid)
{
	__u32 tid = (__u32)pid_tgid;
	struct ls_thread *thread = find_or_make(&threads, &tid, &zero_thread);

	if (!thread) {
		count(LS_LOST_THREAD_TABLE_FULL);
		return 0;
	}
	thread->process = process_of((void *)bpf_get_current_task(), pid_tgid >> 32);
	meet_process(thread->process, bpf_ktime_get_ns());
	return thread;
}

/* The current thread; NULL if the table is full. */
static __always_inline struct ls_thread *find_or_make_thread(__u64 pid_tgid)
{
	__u32 tid = (__u32)pid_tgid;
	struct ls_thread *thread = bpf_map_lookup_elem(&threads, &tid);

	return thread ? thread : make_thread(pid_tgid);
}

/* Threads that were asleep before the capture are entered from another CPU while
 * their call may be ending. Whoever makes the entry here takes the wait out of
 * the books; nobody else does. Once a thread and capture. */
LS_HASH(adopted_ended, __u32, __u8, 16384);

static __always_inline int claim_adopted(__u32 tid)
{
	__u8 one = 1;

	return bpf_map_update_elem(&adopted_ended, &tid, &one, BPF_NOEXIST) == 0;
}
