/* The contract between the kernel programs and user space: every struct that
 * lies in a map or comes through a ring buffer. Compiles as C and C++.
 *
 * Time is CLOCK_MONOTONIC in nanoseconds, cut to multiples of LS_TICK_NS so
 * that durations, the waiting area of a lock and the blame charged from it are
 * sums of the same whole ticks, exactly.
 * Enumerations are numbered and append-only: captures outlive the program. */
#pragma once

#include <linux/types.h>

#include "unwind.h"

#define LS_TICK_SHIFT 4
#define LS_TICK_NS (1 << LS_TICK_SHIFT)

/* Slot i counts durations in [2^i, 2^(i+1)) ns; the last one everything
 * longer (2^39 ns is 9 minutes). */
#define LS_HIST_SLOTS 40

/* Locks that one thread can hold at once and still have its holds timed. */
#define LS_MAX_HELD 8

/* Threads are marked in a bit set by tid modulo this: exact for pools of
 * threads started together, an underestimate above. */
#define LS_THREAD_BITS 256

/* A lock's waiters and their time, in one word that a single atomic add keeps
 * consistent: low LS_BOOK_COUNT_BITS the number of threads waiting, N; above
 * them W = sum of (end - start), as far as both have happened, modulo 2^48
 * ticks. A wait that starts at tick t adds 1 - (t << 16), one that ends adds
 * (t << 16) - 1. The waiting done up to tick t, by everyone, is then
 * A(t) = W + N * t: the area under the curve of waiters. Differences of A are
 * right as long as less than 2^48 ticks (52 thread-days) of waiting lie between
 * two releases, and N is below 65,536. */
#define LS_BOOK_COUNT_BITS 16
#define LS_BOOK_COUNT_MASK ((1u << LS_BOOK_COUNT_BITS) - 1)
#define LS_AREA_BITS (64 - LS_BOOK_COUNT_BITS)

enum ls_lock_type {
	LS_LOCK_PRIVATE = 0, /* space = process, offset = address */
	LS_LOCK_SHARED = 1,  /* space = inode, offset = bytes into the file */
};

/* What a futex is, for all processes that use it. */
struct ls_lock_key {
	__u64 space;
	__u64 offset;
	__u32 device; /* of the inode, kernel's encoding; 0 if private */
	__u32 type;   /* enum ls_lock_type */
};

/* Waits. How many there were is the sum of the histogram. */
struct ls_wait_sums {
	__u64 total_ns;
	__u64 max_ns;
	__u64 sleeps;   /* futex calls that really blocked: several to a wait, if the
			 * thread was beaten to the lock and slept again */
	__u64 timeouts;
	__u32 hist[LS_HIST_SLOTS];
};

/* Releases, and the hold times that ended there: as many as in the histogram. */
struct ls_release_sums {
	__u64 count;
	__u64 hold_total_ns;
	__u64 hold_max_ns;
	__u32 hold_hist[LS_HIST_SLOTS];
};

/* One futex on which a thread has waited. The key in the map is the seeded
 * 64-bit hash of `key`. */
struct ls_lock {
	struct ls_lock_key key;
	__u64 book;            /* see LS_BOOK_COUNT_BITS */
	__u64 charged;         /* area, in ticks, already charged to releases */
	__u64 last_release_ns; /* when, and from which stack, it was last released */
	__u64 last_release_stack;
	__u32 last_release_random;      /* the draw that decided about its stack */
	__u32 last_release_probability; /* of its stack being taken; 0: it was not */
	__u64 requeued_to;     /* lock id to which waiters were last moved */
	__u64 address;         /* in the address space of `process` */
	__u64 process;         /* first process that waited */
	__u64 contended_since_ns; /* when the number of waiters last left 0 */
	__u64 requeue_ns;      /* ... and when */
	__u32 requeue_woken;   /* waiters of requeues yet to leave from here */
	__u32 requeue_moved;   /* ... and yet to leave from `requeued_to` */
	__u32 visitors;        /* waiting here, but in the books of another lock for
				* now: requeued, or futex_waitv beyond element 0 */
	__u32 refused_holds;   /* acquisitions whose release can't be told for sure */
	__u32 acquisitions;    /* waits that ended with the thread going on */
	__u32 max_waiters;
	__u32 traits;          /* enum ls_wait_trait, of all waits seen */
	__u32 waited_releases; /* releases while somebody waited */
	__u32 self_releases;   /* ... by a thread that had waited here itself */
	__u32 pointed;         /* user space was told that it is contended */
	__u64 waiter_threads[LS_THREAD_BITS / 64];
	__u64 releaser_threads[LS_THREAD_BITS / 64];
	struct ls_wait_sums waits; /* all of them, whether their stacks were taken or not */
	struct ls_release_sums releases;
};

/* What the arguments of the futex calls tell about the word; bits. They name
 * the primitive where no symbol does. */
enum ls_wait_trait {
	LS_TRAIT_PLAIN_WAIT = 1 << 0,  /* FUTEX_WAIT */
	LS_TRAIT_BITSET_WAIT = 1 << 1, /* FUTEX_WAIT_BITSET, futex_wait */
	LS_TRAIT_PI = 1 << 2,
	LS_TRAIT_REQUEUE = 1 << 3,
	LS_TRAIT_WAITV = 1 << 4,
	LS_TRAIT_TIMEOUT = 1 << 5,     /* a timeout was given */
	LS_TRAIT_VAL_0 = 1 << 6,       /* waited while the word was 0 */
	LS_TRAIT_VAL_2 = 1 << 7,       /* ... 2: contended (glibc, Rust, Go) */
	LS_TRAIT_VAL_OWNED = 1 << 8,   /* ... FUTEX_WAITERS | tid */
	LS_TRAIT_VAL_OTHER = 1 << 9,
	LS_TRAIT_SHARED = 1 << 10,     /* no FUTEX_PRIVATE_FLAG */
	LS_TRAIT_THREAD_EXIT = 1 << 11, /* released by the kernel as a thread ended */
	LS_TRAIT_SELF_RELEASE = 1 << 12, /* released by a thread that had waited here */
	LS_TRAIT_REQUEUE_TARGET = 1 << 13, /* waiters were moved here */
	LS_TRAIT_VAL_3 = 1 << 14,      /* waited while 3: glibc's rwlock */
};

/* One stack at one lock. */
struct ls_row_key {
	__u64 lock;
	__u64 stack;
};

/* The rows hold the events whose stacks were taken, and what these stand for if
 * they are a sample: each its own amount over the probability with which it was
 * taken. The sums of all events are in struct ls_lock. */
struct ls_wait_row {
	struct ls_wait_sums sums;
	__u64 weight_ns;
};

/* Releases of one lock from one stack, with the waiting charged to them. */
struct ls_release_row {
	struct ls_release_sums sums;
	__u64 blame_ns;
	__u64 weight_count;
	__u64 weight_blame_ns;
	__u64 weight_hold_ns;
};

/* Which release ended which wait. `waker` is 0 where none was seen. */
struct ls_pair_key {
	__u64 lock;
	__u64 waiter;
	__u64 waker;
};

struct ls_pair_row {
	__u64 count; /* of sleeps */
	__u64 total_ns;
	__u64 weight_ns;
};

/* The key of a stack: a seeded hash of the process and the addresses, by which
 * rows refer to it, and the process. The value is struct ls_frames (unwind.h). */
struct ls_stack_key {
	__u64 hash;
	__u64 process;
};

/* Of an event's stack being taken: see sampling.h. */
struct ls_odds {
	__u32 threshold; /* 0: certain */
	__u32 floor;
};

enum ls_thread_phase {
	LS_PHASE_IDLE = 0,    /* not concerned with any lock */
	LS_PHASE_WAITING = 1, /* in a futex call */
	LS_PHASE_WOKEN = 2,   /* left it; may have the lock, may go back to sleep */
};

struct ls_held {
	__u64 lock;  /* 0: free slot */
	__u64 since_ns;
	__u64 word;        /* address waited on */
	__u32 acquisition; /* the lock's count of acquisitions then */
	__u32 kind;        /* enum ls_hold_kind */
};

/* How much is known about the release of a lock that was acquired by waiting. */
enum ls_hold_kind {
	LS_HOLD_CERTAIN = 1, /* comes through the kernel: the word says contended */
	LS_HOLD_LIKELY = 2,  /* only if somebody waits then: semaphores, and such */
	LS_HOLD_RWLOCK = 3,  /* LIKELY, and perhaps on the lock's other futex word */
};

/* One thread; the key in the map is its tid. */
struct ls_thread {
	__u64 process;
	__u64 lock;       /* of the current or last wait */
	__u64 since_ns;   /* start of the current sleep, end of the last */
	__u64 episode_ns; /* of the current wait: time before the current sleep */
	__u64 stack;      /* of the current wait; 0: not taken yet */
	__u64 word;       /* address waited on */
	__u64 second_lock; /* FUTEX_WAIT_REQUEUE_PI and requeues: the other lock;
			    * futex_waitv: address of its array */
	__u64 call_ns;    /* when the pending requeue was made */
	__u32 value;      /* that the word had to have */
	__u32 limit;      /* requeues: how many may be woken; waitv: elements */
	__u8 phase;       /* enum ls_thread_phase */
	__u8 op;          /* futex operation without flags, enum ls_op */
	__u8 requeueing;  /* in a requeue call */
	__u8 before_attach; /* this wait had begun before we looked */
	__u32 random;     /* the draw and the odds that decide about the wait's stack */
	struct ls_odds odds;
	__u32 sampled;    /* it is in the rows, as far as `episode_ns` */
	__u32 padding;
	struct ls_held held[LS_MAX_HELD];
};

/* Futex operations: FUTEX_* of <linux/futex.h> as they are, ours after. */
enum ls_op {
	LS_OP_WAIT = 0,
	LS_OP_WAKE = 1,
	LS_OP_REQUEUE = 3,
	LS_OP_CMP_REQUEUE = 4,
	LS_OP_WAKE_OP = 5,
	LS_OP_LOCK_PI = 6,
	LS_OP_UNLOCK_PI = 7,
	LS_OP_WAIT_BITSET = 9,
	LS_OP_WAKE_BITSET = 10,
	LS_OP_WAIT_REQUEUE_PI = 11,
	LS_OP_CMP_REQUEUE_PI = 12,
	LS_OP_LOCK_PI2 = 13,
	LS_OP_WAITV = 64,
};

/* Everything that was dropped or could not be matched, by reason. */
enum ls_counter {
	LS_COUNT_CALLS = 0,              /* futex calls looked at: not a loss */
	LS_COUNT_STACKS = 1,             /* stacks taken: not a loss */
	LS_LOST_LOCK_TABLE_FULL = 2,     /* waits on a lock for which no room was left */
	LS_LOST_LOCK_TABLE_FULL_NS = 3,  /* their time */
	LS_LOST_WAIT_ROWS_FULL = 4,      /* sleeps kept without their stack */
	LS_LOST_RELEASE_ROWS_FULL = 5,   /* releases kept without their stack */
	LS_LOST_PAIR_ROWS_FULL = 6,
	LS_LOST_THREAD_TABLE_FULL = 7,
	LS_LOST_STACK_TABLE_FULL = 8,
	LS_LOST_EXIT_MISSED = 9,         /* a wait whose end was not seen */
	LS_LOST_CHARGE_CONTENDED = 10,   /* charge left to the next release */
	LS_LOST_SHARED_KEY = 11,         /* shared futex whose file could not be read */
	LS_LOST_NOTICES = 12,            /* notices that user space did not get */
	LS_UNMATCHED_HOLDS = 13,         /* acquired, its release never seen */
	LS_LOST_HELD_FULL = 14,          /* more than LS_MAX_HELD locks held; the oldest goes */
	LS_LOST_STACK_BUSY = 16,         /* interrupted while taking another stack */
	LS_COUNT_EVENTS = 17,            /* sleeps and releases: not a loss */
	LS_COUNT_SAMPLED = 18,           /* ... with their stack: not a loss */
	LS_LOST_HOLDERS_FULL = 19,       /* threads with a contended lock, not looked at */
	LS_LOST_SPLITS_FULL = 20,        /* holds of which is not known what they were made of */
	LS_LOST_ACTIVITIES_FULL = 21,    /* what holders did, without the stack */
	LS_COUNTERS = 24,
};

/* What each CPU keeps for itself. */
struct ls_cpu {
	__u64 counters[LS_COUNTERS]; /* by enum ls_counter */
	/* The sample of stacks: sampling.h. */
	__u64 window_ns; /* when the current window began */
	__u64 mass;      /* of its events */
	__u64 events;
	struct ls_odds odds;
	__u64 random;    /* state of the generator; 0: not seeded yet */
};

/* Waiting at one lock from which on it is worth a closer look: a thousandth of ten
 * seconds. */
#define LS_HOT_NS 10000000ULL

enum ls_notice_kind {
	LS_NOTICE_PROCESS = 1, /* a process was seen for the first time */
	LS_NOTICE_EXEC = 2,    /* it replaced its program */
	LS_NOTICE_CONTENDED = 3, /* it releases a lock that threads have waited for, in all LS_HOT_NS */
};

struct ls_notice {
	__u64 process;
	__u32 kind; /* enum ls_notice_kind */
	__u32 padding;
};

/* A thread that was asleep in a futex call when the task iterator passed. */
struct ls_blocked {
	__u32 tid;
	__u32 tgid;
	__u64 process;
	__u64 ip;
	__u64 sp;
	__u64 bp;
	__u64 args[4]; /* of the futex call */
	__u64 nr;      /* system call */
};

/* A process is named by its tgid in the high half and, below, a hash of its
 * start time and number of execs: a PID that is used again, or a program that
 * replaced itself, is another process. */
#define LS_PROCESS_TGID(process) ((__u32)((process) >> 32))

/* Which tasks are looked at: the target of the command line. */
enum ls_filter {
	LS_FILTER_ALL = 0,
	LS_FILTER_TGIDS = 1, /* those in map `target_tgids` */
	LS_FILTER_COMM = 2,
	LS_FILTER_CGROUP = 3,
};

#ifdef __cplusplus
#define LS_ASSERT_SIZE(type, size) static_assert(sizeof(type) == (size))
#else
#define LS_ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#endif
LS_ASSERT_SIZE(struct ls_lock_key, 24);
LS_ASSERT_SIZE(struct ls_lock, 584);
LS_ASSERT_SIZE(struct ls_wait_row, 200);
LS_ASSERT_SIZE(struct ls_release_row, 216);
LS_ASSERT_SIZE(struct ls_thread, 352);
LS_ASSERT_SIZE(struct ls_blocked, 80);
LS_ASSERT_SIZE(struct ls_notice, 16);
