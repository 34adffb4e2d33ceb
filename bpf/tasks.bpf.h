/* Tasks: which ones are looked at, and what their processes are called. */
#pragma once

#include "maps.bpf.h"

/* Whether the target takes in a task; NULL: the current one, and the only one
 * where the filter is by cgroup. */
static __always_inline int is_target(struct task_struct *task, __u32 tgid)
{
	if (tgid == ls_own_tgid)
		return 0;
	switch (ls_filter_kind) {
	case LS_FILTER_TGIDS:
		if (ls_only_tgid)
			return tgid == ls_only_tgid;
		return bpf_map_lookup_elem(&target_tgids, &tgid) != 0;
	case LS_FILTER_COMM: {
		struct task_struct *which = task ? task : (void *)bpf_get_current_task();
		struct task_struct *leader = BPF_CORE_READ(which, group_leader);
		char comm[16] = {};

		bpf_core_read(&comm, sizeof(comm), &leader->comm);
		for (int i = 0; i < 16; i++) {
			if (comm[i] != ls_filter_comm[i])
				return 0;
			if (!comm[i])
				break;
		}
		return 1;
	}
	case LS_FILTER_CGROUP:
		return bpf_current_task_under_cgroup(&target_cgroup, 0) == 1;
	default:
		return 1;
	}
}

/* See LS_PROCESS_TGID. */
static __always_inline __u64 process_of(struct task_struct *task, __u32 tgid)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	__u64 started = BPF_CORE_READ(leader, start_boottime);
	/* The leader's: threads that wait in exec still belong to the old program. */
	__u64 execs = BPF_CORE_READ(leader, self_exec_id);
	__u32 generation = (__u32)mix(started, execs);

	return (__u64)tgid << 32 | generation;
}

static __always_inline void notify(__u64 process, __u32 kind)
{
	struct ls_notice *notice = bpf_ringbuf_reserve(&notices, sizeof(*notice), 0);

	if (!notice) {
		count(LS_LOST_NOTICES);
		return;
	}
	notice->process = process;
	notice->kind = kind;
	notice->padding = 0;
	bpf_ringbuf_submit(notice, 0);
}

/* Tells user space, once, that there is something to know about a process. */
static __always_inline void meet_process(__u64 process, __u64 now)
{
	if (bpf_map_lookup_elem(&processes, &process))
		return;
	if (bpf_map_update_elem(&processes, &process, &now, BPF_NOEXIST) == 0)
		notify(process, LS_NOTICE_PROCESS);
}
