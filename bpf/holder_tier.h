/* The contract of the holder tier: what threads did while they held a contended
 * lock. Compiles as C and C++. */
#pragma once

#include "events.h"

/* Contended locks that one thread holds at once. */
#define LS_MAX_MARKS 8

enum ls_mark_kind {
	LS_MARK_LOCK = 1,   /* a lock of the futex tier, by its id */
	LS_MARK_OBJECT = 2, /* an object of the pthread tier, by its address */
};
/* With these: an attempt, of which the outcome is not known; but that the mutex tells,
 * if it is one of this enum ls_libc (0: it is not). */
#define LS_MARK_MAYBE(libc) (0x100 | (libc) << 9)
#define LS_MARK_LIBC(maybe) ((maybe) >> 1)

/* A contended lock that a thread holds, and where its clocks stood when it got it. */
struct ls_mark {
	__u64 lock;
	__u64 since_ns;
	__u64 runnable_ns;
	__u64 blocked_ns;
	__u32 kind;  /* enum ls_mark_kind */
	__u32 maybe; /* it may not have it: LS_MARK_MAYBE, shifted */
};

enum ls_holder_state {
	LS_HOLDER_RUNNING = 0,
	LS_HOLDER_RUNNABLE = 1, /* off the CPU, and could go on */
	LS_HOLDER_BLOCKED = 2,  /* off the CPU, until something comes */
};

/* One thread; the key in the map is its tid. Its clocks run only while it holds
 * what is contended. */
struct ls_holder {
	__u64 process;
	__u64 off_since_ns; /* in this state */
	__u64 runnable_ns;
	__u64 blocked_ns;
	__u64 stack;   /* where it blocked; 0: not in the sample */
	__u64 charged; /* lock to which what it does there is charged */
	__u32 inverse; /* of the probability that it is, 16 binary places; 0: it is not */
	__u32 charged_kind; /* enum ls_mark_kind; 0: to none */
	__s32 call;    /* system call in which it blocked; LS_CALL_FAULT */
	__u32 state;   /* enum ls_holder_state */
	__u32 n;       /* of `marks`, the newest last */
	__u32 padding;
	struct ls_mark marks[LS_MAX_MARKS];
};

/* Holds of one contended lock. */
struct ls_split_key {
	__u64 process;
	__u64 lock;
	__u32 kind; /* enum ls_mark_kind */
	__u32 padding;
};

/* What they were made of; the rest is running. */
struct ls_split {
	__u64 count;
	__u64 held_ns;
	__u64 runnable_ns;
	__u64 blocked_ns;
};

/* Beside the numbers of system calls. */
enum ls_holder_call {
	LS_CALL_FAULT = -1,   /* blocked, and in no system call: a page fault */
	LS_CALL_RUNNING = -2, /* on the CPU, by samples */
};

/* What holders of one lock did at one stack: that of the lock which the thread got
 * last, of those that it has for certain. A sample. */
struct ls_activity_key {
	__u64 process;
	__u64 lock;
	__u64 stack;
	__u32 kind; /* enum ls_mark_kind */
	__s32 call; /* system call, or enum ls_holder_call */
};

struct ls_activity_row {
	__u64 count;     /* times that it blocked; CPU samples */
	__u64 total_ns;  /* blocked */
	__u64 weight_ns; /* ... that these stand for; CPU samples: how many */
};

/* CPU samples a second and CPU. A prime, so as not to keep step with timers. */
#define LS_HOLDER_SAMPLES 997

#define LS_HOLDERS 4096
#define LS_SPLITS 8192
#define LS_ACTIVITY_ROWS 8192

LS_ASSERT_SIZE(struct ls_mark, 40);
LS_ASSERT_SIZE(struct ls_holder, 392);
LS_ASSERT_SIZE(struct ls_split_key, 24);
LS_ASSERT_SIZE(struct ls_activity_key, 32);
