/* The set of locks that a thread has: entering, leaving, recursion. */
#pragma once

#include "pthread_maps.bpf.h"

/* The first fields of glibc's pthread_mutex_t: struct __pthread_mutex_s
 * (sysdeps/nptl/bits/struct_mutex.h), x86-64. */
struct glibc_mutex {
	__u32 lock;
	__u32 count;
	__u32 owner;
	__u32 users;
	__u32 kind;
};

/* ... and of musl's (src/internal/pthread_impl.h: _m_type, _m_lock, _m_count). */
struct musl_mutex {
	__u32 type;
	__u32 lock;
	__u32 unused[3];
	__u32 count;
};

enum { MUTEX_NORMAL = 0, MUTEX_RECURSIVE = 1, MUTEX_TYPE_MASK = 3 };

/* What a mutex says of itself, and of the current thread. */
struct mutex_state {
	__u8 known;     /* who owns it can be told */
	__u8 mine;
	__u8 recursive;
	__u8 again;     /* taken more than once */
};

static __always_inline struct mutex_state read_mutex(__u64 address, __u32 libc, __u32 tid)
{
	struct mutex_state state = {};

	if (libc == LS_LIBC_MUSL) {
		struct musl_mutex mutex;

		if (bpf_probe_read_user(&mutex, sizeof(mutex), (void *)address))
			return state;
		state.known = (mutex.type & 15) != MUTEX_NORMAL;
		state.mine = state.known && (mutex.lock & 0x3fffffff) == tid;
		state.recursive = (mutex.type & MUTEX_TYPE_MASK) == MUTEX_RECURSIVE;
		state.again = state.mine && mutex.count > 0;
	} else {
		struct glibc_mutex mutex;

		if (bpf_probe_read_user(&mutex, sizeof(mutex), (void *)address))
			return state;
		state.known = 1;
		state.mine = mutex.owner == tid;
		state.recursive = (mutex.kind & MUTEX_TYPE_MASK) == MUTEX_RECURSIVE;
		state.again = state.mine && mutex.count > 1;
	}
	return state;
}

/* The slot of an object among what the thread has, newest first; -1: none. */
static __always_inline int find_held(const struct ls_pthread *thread, __u64 address)
{
	int found = -1;

	for (int i = 0; i < LS_MAX_ACQUIRED; i++) {
		if (i >= thread->n)
			break;
		if (thread->held[i].address == address)
			found = i;
	}
	return found;
}

/* Slots are told apart by number: see begin_hold() in holds.bpf.h. */
static __always_inline struct ls_acquired *slot_of(struct ls_pthread *thread, __u32 slot)
{
	asm volatile("" : "+r"(slot)); /* or the mask may go */
	return &thread->held[slot & (LS_MAX_ACQUIRED - 1)];
}

static __always_inline void remove_held(struct ls_pthread *thread, int slot)
{
	__u32 last = thread->n - 1;

	if (last >= LS_MAX_ACQUIRED)
		return;
	if (last != slot)
		*slot_of(thread, slot) = *slot_of(thread, last);
	thread->n = last;
}

/* A free slot. If there is none, that goes which is least likely to be held: what
 * may never have been acquired, or else the oldest. */
static __always_inline __u32 free_slot(struct ls_pthread *thread)
{
	__u32 slot = 0;

	if (thread->n < LS_MAX_ACQUIRED)
		return thread->n++;
	for (int i = LS_MAX_ACQUIRED - 1; i >= 0; i--)
		if (thread->held[i].flags & LS_ACQUIRED_MAYBE)
			slot = i;
	count_pthread(LS_PTHREAD_LOST_HELD);
	return slot;
}
