/* Contract between the stack walker (in the kernel and in user space) and the
 * builder of unwind tables. Nothing else crosses.
 *
 * Everything bulky lives in one pool: 1 MiB segments of 32-bit words, addressed
 * by a global word index (segment = index >> LS_POOL_SEGMENT_SHIFT). In it:
 *
 *   mapping lists  struct ls_unwind_mapping[n], sorted by start, per process
 *   directories    struct ls_unwind_page[n], one per 64 KiB of a file's text
 *   rows           struct ls_unwind_row[n] per page, sorted by pc
 *
 * None of these straddles a segment: a reader looks a segment up once and then
 * only masks indices. Writers write rows, then the directory, then the mapping
 * list, and last the process's entry; memory is reused after a grace period.
 */
#ifndef LOCKSCOPE_UNWIND_H
#define LOCKSCOPE_UNWIND_H

#include <linux/types.h>

#ifdef __cplusplus
#define LS_UNWIND_ASSERT(what, text) static_assert(what, text)
#else
#define LS_UNWIND_ASSERT(what, text) _Static_assert(what, text)
#endif

enum {
  LS_UNWIND_MAX_FRAMES = 127,    /* what bpf_get_stack and perf give by default */
  LS_UNWIND_MAX_MAPPINGS = 512,  /* executable mappings of one process */
  LS_UNWIND_MAX_PROCESSES = 4096,
  LS_UNWIND_MAX_REQUESTS = 1024,
  LS_UNWIND_MAX_RULES = 16384,   /* 992 libraries together have 3,665 */

  LS_UNWIND_PAGE_SHIFT = 16,     /* a row holds the low 16 bits of a pc */
  LS_UNWIND_MAX_PAGES = 16384,   /* 1 GiB of text in one segment of a file */

  LS_POOL_SEGMENT_SHIFT = 18,    /* words in a segment: 1 MiB */
  LS_POOL_SEGMENT_WORDS = 1 << LS_POOL_SEGMENT_SHIFT,
  LS_POOL_SEGMENT_BYTES = LS_POOL_SEGMENT_WORDS * 4,
  LS_POOL_MAX_SEGMENTS = 64,
};

/* What is known about the stack that was walked: a set of bits. Values are
 * stored in captures: append only. */
enum ls_unwind_flag {
  LS_UNWIND_COMPLETE = 1 << 0,    /* reached the start of the thread */
  LS_UNWIND_TRUNCATED = 1 << 1,   /* deeper than LS_UNWIND_MAX_FRAMES */
  LS_UNWIND_NO_TABLE = 1 << 2,    /* process or mapping not known (yet) */
  LS_UNWIND_BROKEN = 1 << 3,      /* stopped early; one of the reasons below */
  LS_UNWIND_FP_GUESS = 1 << 4,    /* frame pointer used where no table said so */
  LS_UNWIND_READ_FAULT = 1 << 5,  /* BROKEN: stack memory not readable */
  LS_UNWIND_BAD_RULE = 1 << 6,    /* BROKEN: a rule the walker can't follow */
  LS_UNWIND_BAD_ADDRESS = 1 << 7, /* BROKEN: implausible pc, sp or rbp */
  LS_UNWIND_BUSY = 1 << 8,        /* no stack: all scratch slots of the CPU taken */
};

/* Where the caller's stack pointer (the CFA) is. Append only. */
enum ls_cfa_kind {
  LS_CFA_NONE = 0,        /* no unwind information: guess by frame pointer */
  LS_CFA_SP = 1,          /* rsp + offset */
  LS_CFA_BP = 2,          /* rbp + offset */
  LS_CFA_PLT = 3,         /* rsp + low half + ((pc & 15) >= high half ? 8 : 0) */
  LS_CFA_DEREF_BP = 4,    /* *(rbp + low half) + high half */
  LS_CFA_DEREF_SP = 5,    /* *(rsp + low half) + high half */
  LS_CFA_SIGNAL = 6,      /* rsp points to the kernel's struct ucontext */
  LS_CFA_END = 7,         /* outermost frame: the return address is undefined */
  LS_CFA_FP = 8,          /* code known to keep frame pointers (Go) */
  LS_CFA_UNSUPPORTED = 9, /* other registers or expressions */
};

/* Where the caller's rbp is. Append only. */
enum ls_bp_kind {
  LS_BP_SAME = 0,      /* not touched */
  LS_BP_AT_CFA = 1,    /* *(CFA + bp_offset) */
  LS_BP_AT_BP = 2,     /* *(rbp + bp_offset): realigned stacks */
  LS_BP_UNKNOWN = 3,   /* lost */
};

/* How to get from one frame to its caller. The return address is at CFA - 8. */
struct ls_unwind_rule {
  __u8 cfa; /* enum ls_cfa_kind */
  __u8 bp;  /* enum ls_bp_kind */
  __s16 bp_offset;
  __s32 cfa_offset; /* two signed 16-bit halves where the kind says so */
};
LS_UNWIND_ASSERT(sizeof(struct ls_unwind_rule) == 8, "rule is 8 bytes");

/* From this pc on (within a page of 64 KiB) the rule holds. The first row of
 * a page has pc 0: the rule in force where the page begins. */
struct ls_unwind_row {
  __u16 pc;
  __u16 rule; /* index into the rules */
};
LS_UNWIND_ASSERT(sizeof(struct ls_unwind_row) == 4, "row is 4 bytes");

struct ls_unwind_page {
  __u32 rows;   /* pool index of the first row */
  __u32 n_rows; /* 1 .. 65536 */
};
LS_UNWIND_ASSERT(sizeof(struct ls_unwind_page) == 8, "page is 8 bytes");

/* In place of a directory: there is no table, and the code is known to keep
 * frame pointers. (No directory lies there: the pool is handed out in chunks.) */
enum { LS_UNWIND_KEEPS_FP = 1 };

/* An executable mapping. Without a table n_pages is 0. */
struct ls_unwind_mapping {
  __u64 start;
  __u64 end;
  __u64 bias;      /* pc - bias is an offset into the table's pages */
  __u32 directory; /* pool index of the first struct ls_unwind_page, or above */
  __u32 n_pages;
};
LS_UNWIND_ASSERT(sizeof(struct ls_unwind_mapping) == 32, "mapping is 32 bytes");

/* Key: tgid. */
struct ls_unwind_process {
  __u64 start_stack; /* mm->start_stack, tells one exec from the next; 0: any */
  __u64 exec_pages;  /* mm->exec_vm: other than this, code came or went; 0: any */
  __u32 mappings;    /* pool index of the first struct ls_unwind_mapping */
  __u32 n_mappings;
};
LS_UNWIND_ASSERT(sizeof(struct ls_unwind_process) == 24, "process is 24 bytes");

/* The kernel asks for (another) look at a process's mappings. Key: tgid. Stays
 * until user space has served and deleted it, which limits the rate. */
struct ls_unwind_request {
  __u64 asked_ns; /* CLOCK_MONOTONIC */
  __u64 address;  /* the pc without a mapping; 0: process not as it is known */
};
LS_UNWIND_ASSERT(sizeof(struct ls_unwind_request) == 16, "request is 16 bytes");

struct ls_user_regs {
  __u64 ip;
  __u64 sp;
  __u64 bp;
};

/* A stack, innermost frame first. Every address lies within the instruction
 * that is being executed: the pc itself for the innermost frame and for frames
 * interrupted by a signal, return address - 1 for callers. So symbolize as is. */
struct ls_frames {
  __u32 n;
  __u32 flags; /* enum ls_unwind_flag */
  __u64 ips[LS_UNWIND_MAX_FRAMES];
};
LS_UNWIND_ASSERT(sizeof(struct ls_frames) == 1024, "frames are 1 KiB");

#endif
