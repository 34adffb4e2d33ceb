/* The maps of the pthread tier and its counters. About 9 MB, only where the tier is
 * used. */
#pragma once

#include "books.bpf.h"
#include "pthread_state.bpf.h"
#include "threads.bpf.h"

/* The slice of time in which events count, beside the capture's own bounds; probes
 * are there for a while before and after. A new number: what threads are known to
 * have from before is void. */
volatile __u32 ls_slice = 0;
volatile __u64 ls_slice_start_ns = 0;
volatile __u64 ls_slice_stop_ns = 0;

/* What a probe adds to a hold that begins at it, after we took the time, and to one
 * that ends at it, before; by enum ls_call, as measured (pthread_probe.cc). */
volatile __u32 ls_after_ns[32];
volatile __u32 ls_before_ns[32];

LS_HASH(objects, struct ls_object_key, struct ls_object, 8192);
LS_HASH(hold_rows, struct ls_hold_key, struct ls_hold_row, 8192);
LS_HASH(orders, struct ls_order_key, struct ls_order_row, 4096);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ls_pthread_cpu);
} pthread_cpus SEC(".maps");

static const struct ls_pthread zero_pthread = {};
static const struct ls_object zero_object = {};
static const struct ls_hold_row zero_hold_row = {};
static const struct ls_order_row zero_order_row = {};

static __always_inline struct ls_pthread_cpu *this_pthread_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&pthread_cpus, &zero);
}

static __always_inline void count_pthread(__u32 counter)
{
	struct ls_pthread_cpu *cpu = this_pthread_cpu();

	/* Programs at uprobes may be preempted. */
	if (cpu)
		__sync_fetch_and_add(&cpu->counters[counter], 1);
}

static __always_inline void count_hit(__u32 call)
{
	struct ls_pthread_cpu *cpu = this_pthread_cpu();

	if (cpu && call < LS_CALLS)
		__sync_fetch_and_add(&cpu->hits[call], 1);
}

/* When the hold that begins at a call's probe, hit at `now`, really begins; and ends. */
static __always_inline __u64 begin_of(__u32 call, __u64 now)
{
	return now + ls_after_ns[call & 31];
}

static __always_inline __u64 end_of(__u32 call, __u64 now)
{
	return now - ls_before_ns[call & 31];
}

static __always_inline int in_slice(__u64 now)
{
	return now >= ls_slice_start_ns && now < ls_slice_stop_ns;
}

static __noinline struct ls_pthread *make_pthread(__u32 tgid, __u32 tid)
{
	struct ls_pthread *thread = find_or_make(&pthreads, &tid, &zero_pthread);

	if (!thread) {
		count_pthread(LS_PTHREAD_LOST_THREADS);
		return 0;
	}
	thread->process = process_of((void *)bpf_get_current_task(), tgid);
	if (ls_mark_holders)
		forget_marked_objects();
	thread->slice = ls_slice;
	thread->n = 0;
	thread->hits = 0;
	thread->pending = 0;
	thread->previous = 0;
	thread->pending_cond = 0;
	thread->spinning_ns = 0;
	meet_process(thread->process, bpf_ktime_get_ns());
	return thread;
}

static __always_inline struct ls_pthread *current_pthread(void)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)pid_tgid;
	struct ls_pthread *thread = bpf_map_lookup_elem(&pthreads, &tid);

	if (thread && thread->slice == ls_slice)
		return thread;
	return make_pthread(pid_tgid >> 32, tid);
}

static __noinline struct ls_object *make_object(const struct ls_object_key *key, __u32 kind)
{
	struct ls_object *object = find_or_make(&objects, key, &zero_object);

	if (!object) {
		count_pthread(LS_PTHREAD_LOST_OBJECTS);
		return 0;
	}
	object->kind = kind;
	return object;
}

static __always_inline struct ls_object *find_object(const struct ls_pthread *thread,
						     __u64 address, __u32 kind)
{
	struct ls_object_key key = { .process = thread->process, .address = address };
	struct ls_object *object = bpf_map_lookup_elem(&objects, &key);

	return object ? object : make_object(&key, kind);
}

/* Whether a thread has slept for it before it had it. */
static __always_inline int is_contended(const struct ls_pthread *thread, __u64 address)
{
	struct ls_object_key key = { .process = thread->process, .address = address };
	const struct ls_object *object = bpf_map_lookup_elem(&objects, &key);

	return object && object->events[LS_EVENT_CONTENDED];
}

static __always_inline void add_event(struct ls_object *object, __u32 event)
{
	if (object && event < LS_OBJECT_EVENTS)
		__sync_fetch_and_add(&object->events[event], 1);
}
