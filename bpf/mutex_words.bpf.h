/* What a mutex of pthreads says of itself, in the memory of its process. */
#pragma once

#include "maps.bpf.h"
#include "pthread_tier.h"

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
