/* What the test program in the kernel hands to the test: a stack as the walker
 * saw it, and what an independent unwinder needs to walk it again. */
#pragma once

#include "unwind.h"

enum { SAMPLE_STACK_BYTES = 32768, SAMPLE_CHUNK = 512 };

enum sample_kind { SAMPLE_SYSCALL = 0, SAMPLE_CLOCK = 1 };

struct sample {
  __u32 tgid;
  __u32 tid;
  __u32 kind;        /* enum sample_kind */
  __u32 stack_bytes; /* from stack_start on */
  __u64 stack_start;
  __u64 regs[21]; /* struct pt_regs */
  struct ls_frames frames;
  __u8 stack[SAMPLE_STACK_BYTES];
};
