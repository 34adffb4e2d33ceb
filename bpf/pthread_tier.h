/* The contract of the pthread tier: what its programs, at the functions of libc,
 * keep of each object and thread. Compiles as C and C++. */
#pragma once

#include "events.h"

/* Locks that one thread has at once. */
#define LS_MAX_ACQUIRED 16

/* Bytes of the largest object that has futex words in it: glibc's rwlock. A wait
 * on a word this near behind an object's address is a wait for the object. */
#define LS_OBJECT_BYTES 56

enum ls_object_kind {
	LS_OBJECT_MUTEX = 1,
	LS_OBJECT_RWLOCK = 2,
	LS_OBJECT_COND = 3,
	LS_OBJECT_SEM = 4,
	LS_OBJECT_BARRIER = 5,
	LS_OBJECT_JOIN = 6, /* the address is the pthread_t */
	LS_OBJECT_ONCE = 7,
	LS_OBJECT_SPIN = 8,
};

/* What a thread calls of pthreads. */
enum ls_call {
	LS_CALL_MUTEX_LOCK = 0,
	LS_CALL_MUTEX_TRYLOCK = 1,
	LS_CALL_MUTEX_TIMEDLOCK = 2, /* and clocklock */
	LS_CALL_MUTEX_UNLOCK = 3,
	LS_CALL_RWLOCK_READ = 4,
	LS_CALL_RWLOCK_TRY_READ = 5,
	LS_CALL_RWLOCK_TIMED_READ = 6,
	LS_CALL_RWLOCK_WRITE = 7,
	LS_CALL_RWLOCK_TRY_WRITE = 8,
	LS_CALL_RWLOCK_TIMED_WRITE = 9,
	LS_CALL_RWLOCK_UNLOCK = 10,
	LS_CALL_COND_WAIT = 11, /* timed or not */
	LS_CALL_COND_SIGNAL = 12,
	LS_CALL_COND_BROADCAST = 13,
	LS_CALL_SEM_WAIT = 14,
	LS_CALL_SEM_TRYWAIT = 15,
	LS_CALL_SEM_TIMEDWAIT = 16,
	LS_CALL_SEM_POST = 17,
	LS_CALL_BARRIER_WAIT = 18,
	LS_CALL_ONCE = 19,
	LS_CALL_JOIN = 20,
	LS_CALL_SPIN_LOCK = 21,
	LS_CALL_SPIN_TRYLOCK = 22,
	LS_CALL_SPIN_UNLOCK = 23,
	LS_CALLS = 24,
};

/* Whose layout the objects have. */
enum ls_libc {
	LS_LIBC_GLIBC = 1,
	LS_LIBC_MUSL = 2,
};

/* The attach cookie of a probe: enum ls_call, enum ls_libc, and whether the zero
 * flag says at the site that the lock was taken. */
#define LS_SITE(call, libc, outcome_in_zero_flag) \
	((call) | (libc) << 8 | (outcome_in_zero_flag) << 16)
#define LS_SITE_CALL(site) ((__u8)(site))
#define LS_SITE_LIBC(site) ((__u8)((site) >> 8))
#define LS_SITE_OUTCOME_IN_ZERO_FLAG(site) ((site) >> 16 & 1)

/* What happened at an object, beside acquisitions that were released again. */
enum ls_object_event {
	LS_EVENT_ATTEMPTS = 0,     /* calls to take it, of whatever kind and outcome */
	LS_EVENT_WAITS = 1,        /* cond, barrier, join, once: calls to wait */
	LS_EVENT_SIGNALS = 2,
	LS_EVENT_BROADCASTS = 3,
	LS_EVENT_UNHELD = 4,       /* signals and broadcasts without the mutex */
	LS_EVENT_NOBODY = 5,       /* ... with nobody waiting */
	LS_EVENT_POSTS = 6,        /* sem_post by a thread that had not taken it */
	LS_EVENT_NEVER_POSTED = 7, /* semaphore taken, and taken again: consumed */
	LS_EVENT_SPINS = 8,        /* spin lock not free at the first attempt */
	LS_EVENT_FAILED = 9,       /* trylock and timed calls that turned out to have failed */
	LS_EVENT_CONTENDED = 10,   /* acquisitions that slept */
	LS_OBJECT_EVENTS = 12,
};

struct ls_object_key {
	__u64 process;
	__u64 address;
};

/* One object of pthreads. */
struct ls_object {
	__u32 kind;      /* enum ls_object_kind */
	__u32 slice;     /* cond: of which `waiting` is true */
	__s32 waiting;   /* cond: threads between their call and what they did next */
	__u32 padding;
	__u64 partner;   /* cond: the mutex last used with it */
	__u64 spin_ns;   /* spent spinning */
	__u64 hits;      /* summed up over its releases: of the thread so far in the slice */
	__u64 before_count; /* releases of what had been acquired before we looked */
	__u64 before_ns;    /* ... their holds since then */
	__u64 events[LS_OBJECT_EVENTS];
	struct ls_release_sums holds;       /* exclusive */
	struct ls_release_sums read_holds;  /* rwlock */
};

enum ls_acquired_flag {
	LS_ACQUIRED_READ = 1 << 0,
	LS_ACQUIRED_MAYBE = 1 << 1, /* trylock or timed: known when it is released */
	LS_ACQUIRED_SLEPT = 1 << 2,
	LS_ACQUIRED_AGAIN = 1 << 3, /* recursively: how often, the mutex knows */
	LS_ACQUIRED_CONTENDED = 1 << 4, /* threads have slept for it: holder_tier.h */
};

/* A lock that a thread has, or has asked for. */
struct ls_acquired {
	__u64 address;
	__u64 since_ns;
	__u64 stack;   /* where it was acquired; 0: not in the sample */
	__u32 inverse; /* of the probability that it is, 16 binary places */
	__u8 kind;     /* enum ls_object_kind */
	__u8 flags;    /* enum ls_acquired_flag */
	__u16 depth;   /* rwlock: times that it is held for reading */
};

/* One thread; the key in the map is its tid. */
struct ls_pthread {
	__u64 process;
	__u64 pending;      /* object that it asked for last: sleeps there belong to it */
	__u64 previous;     /* ... in the call before */
	__u64 pending_cond; /* ... and the condition that it waits on, in between */
	__u64 spinning_ns;  /* since when it spins for `pending` */
	__u32 slice;        /* of which the rest is true: ls_slice */
	__u32 n;            /* of `held` */
	__u32 hits;         /* of probes, in the slice */
	__u32 padding;
	struct ls_acquired held[LS_MAX_ACQUIRED];
};

/* Acquisitions of one object from one stack: a sample, by count. */
struct ls_hold_key {
	__u64 process;
	__u64 address;
	__u64 stack;
};

struct ls_hold_row {
	struct ls_release_sums sums;
	__u64 weight_count;
	__u64 weight_ns;
};

/* One lock asked for while another was held. */
struct ls_order_key {
	__u64 process;
	__u64 held;
	__u64 wanted;
};

struct ls_order_row {
	__u64 count;
	__u64 stack; /* of the first time */
	__u32 tid;   /* ... */
	__u32 padding;
};

enum ls_pthread_counter {
	LS_PTHREAD_LOST_THREADS = 1,    /* no room */
	LS_PTHREAD_LOST_OBJECTS = 2,
	LS_PTHREAD_LOST_HOLD_ROWS = 3,
	LS_PTHREAD_LOST_ORDERS = 4,
	LS_PTHREAD_LOST_HELD = 5,       /* more than LS_MAX_ACQUIRED locks held */
	LS_PTHREAD_UNMATCHED = 6,       /* acquired again without a release that we saw */
	LS_PTHREAD_COUNTERS = 8,
};

struct ls_pthread_cpu {
	__u64 counters[LS_PTHREAD_COUNTERS];
	__u64 hits[LS_CALLS];  /* of probes, in a slice or not */
	struct ls_cpu sample; /* of stacks, its window and odds */
};

LS_ASSERT_SIZE(struct ls_object, 520);
LS_ASSERT_SIZE(struct ls_pthread, 568);
LS_ASSERT_SIZE(struct ls_hold_row, 200);
