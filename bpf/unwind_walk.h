/* The stack walker: one source for the kernel and for user space.
 *
 * The includer defines, before including this file:
 *
 *   LS_WALK_INLINE                      e.g. static __always_inline
 *   ls_walk_read_user(w, dst, n, addr)  copies n bytes of the walked thread's
 *                                       memory; 0 on success
 *   ls_walk_segment(w, i)               const __u32 * to a segment of the pool
 *                                       (LS_POOL_SEGMENT_WORDS words) or NULL
 *   ls_walk_rule(w, i)                  const struct ls_unwind_rule * or NULL
 *   ls_walk_ask(w, address)             asks for a rescan of the process
 *
 * Why it looks the way it does: the verifier. Searches have no branches that
 * depend on data (each would double the states), indices are masked right
 * before use, and LS_HIDE keeps the compiler from undoing either.
 *
 * About 50 ns a frame in the kernel, of which a third is copying stack memory:
 * hence windows of 512 bytes instead of a copy per word, and no copy for an rbp
 * that is saved far away before a later frame asks for it.
 */
#ifndef LOCKSCOPE_UNWIND_WALK_H
#define LOCKSCOPE_UNWIND_WALK_H

#include "unwind.h"

/* The compiler must believe that `x` may be anything from here on. */
#define LS_HIDE(x) __asm__ volatile("" : "+r"(x))

enum {
  LS_WALK_WINDOW_WORDS = 64, /* a power of two: indices are masked */
  LS_WALK_WINDOW_BYTES = LS_WALK_WINDOW_WORDS * 8,
};

/* One walk in progress. */
struct ls_walk {
  /* The frame being looked at. */
  __u64 ip;
  __u64 sp;
  __u64 bp;
  __u64 bp_slot;  /* not 0: rbp is still to be read from there */
  __u32 exact;    /* ip is a pc, not a return address */
  __u32 guessed;  /* ip was found by guessing */

  /* The process: its mapping list in the pool. */
  __u32 mappings;
  __u32 n_mappings;
  __u32 tgid;

  /* The bytes of stack at hand. Never across a page: what lies beyond may not
   * be mapped, and then the copy would fail as a whole. */
  __u32 window_bytes;
  __u64 window_start;

  struct ls_unwind_mapping mapping; /* the last one used */

  __u32 busy; /* kernel only */
  __u32 slot; /* kernel only */
  __u64 window[LS_WALK_WINDOW_WORDS];
  struct ls_frames out;
};

enum { LS_WALK_ON = 0, LS_WALK_STOP = 1 };

LS_WALK_INLINE int ls_walk_stop(struct ls_walk *w, __u32 flags)
{
  w->out.flags |= flags;
  return LS_WALK_STOP;
}

/* A word of stack memory, through the window. 0 on success. */
LS_WALK_INLINE int ls_walk_word(struct ls_walk *w, __u64 address, __u64 *value)
{
  __u64 offset = address - w->window_start;

  if (address & 7) return ls_walk_read_user(w, value, 8, address);
  if (offset >= w->window_bytes) {
    __u64 bytes = 4096 - (address & 4095);
    if (bytes > LS_WALK_WINDOW_BYTES) bytes = LS_WALK_WINDOW_BYTES;
    /* Up to 6.1 the verifier forgets the comparison when the value is spilled
     * to the stack, but not a mask. (What follows the window is big enough.) */
    LS_HIDE(bytes);
    bytes &= 2 * LS_WALK_WINDOW_BYTES - 1;
    w->window_bytes = 0;
    if (ls_walk_read_user(w, w->window, bytes, address)) return -1;
    w->window_start = address;
    w->window_bytes = bytes;
    offset = 0;
  }
  offset >>= 3;
  LS_HIDE(offset);
  *value = w->window[offset & (LS_WALK_WINDOW_WORDS - 1)];
  return 0;
}

/* Makes w->bp valid. Does not move the window: it is behind us on the stack. */
LS_WALK_INLINE int ls_walk_restore_bp(struct ls_walk *w)
{
  __u64 value = 0;

  if (!w->bp_slot) return 0;
  if (ls_walk_read_user(w, &value, 8, w->bp_slot)) return -1;
  w->bp = value;
  w->bp_slot = 0;
  return 0;
}

/* 1 if both have their sign bit set: a - b and c - d "both less than". */
LS_WALK_INLINE __u64 ls_walk_both_negative(__u64 a, __u64 b)
{
  __u64 both = a & b;

  LS_HIDE(both);
  return both >> 63;
}

/* Leaves the mapping of `pc` in w->mapping. 1 if there is one. */
LS_WALK_INLINE int ls_walk_find_mapping(struct ls_walk *w, __u64 pc)
{
  const char *segment;
  const struct ls_unwind_mapping *found;
  __u64 base, at, low = 0, n = w->n_mappings;

  if (pc >= w->mapping.start && pc < w->mapping.end) return 1;
  if (!n) return 0;
  segment = (const char *)ls_walk_segment(w, w->mappings >> LS_POOL_SEGMENT_SHIFT);
  if (!segment) return 0;
  base = (__u64)w->mappings * 4;
#define LS_STEP(step)                                                                    \
  do {                                                                                   \
    __u64 q = low + (step);                                                              \
    at = base + q * sizeof(struct ls_unwind_mapping);                                    \
    LS_HIDE(at);                                                                         \
    at &= LS_POOL_SEGMENT_BYTES - sizeof(struct ls_unwind_mapping);                      \
    low += ls_walk_both_negative(*(const __u64 *)(segment + at) - pc - 1, q - n) * (step); \
  } while (0)
  if (n > 32) {
    LS_STEP(256);
    LS_STEP(128);
    LS_STEP(64);
    LS_STEP(32);
  }
  LS_STEP(16);
  LS_STEP(8);
  LS_STEP(4);
  LS_STEP(2);
  LS_STEP(1);
#undef LS_STEP
  at = base + low * sizeof(struct ls_unwind_mapping);
  LS_HIDE(at);
  at &= LS_POOL_SEGMENT_BYTES - sizeof(struct ls_unwind_mapping);
  found = (const struct ls_unwind_mapping *)(segment + at);
  w->mapping.start = found->start;
  w->mapping.end = found->end;
  w->mapping.bias = found->bias;
  w->mapping.directory = found->directory;
  w->mapping.n_pages = found->n_pages;
  return pc >= w->mapping.start && pc < w->mapping.end;
}

/* The rule for `pc`, which lies in w->mapping; NULL if there is no table. */
LS_WALK_INLINE const struct ls_unwind_rule *ls_walk_find_rule(struct ls_walk *w, __u64 pc)
{
  const char *segment;
  const struct ls_unwind_page *page;
  __u64 offset = pc - w->mapping.bias;
  __u64 key = offset & ((1 << LS_UNWIND_PAGE_SHIFT) - 1);
  __u64 at, base, n, low = 0;

  offset >>= LS_UNWIND_PAGE_SHIFT;
  if (offset >= w->mapping.n_pages) return 0;
  segment = (const char *)ls_walk_segment(w, w->mapping.directory >> LS_POOL_SEGMENT_SHIFT);
  if (!segment) return 0;
  at = (__u64)w->mapping.directory * 4 + offset * sizeof(*page);
  LS_HIDE(at);
  at &= LS_POOL_SEGMENT_BYTES - sizeof(*page);
  page = (const struct ls_unwind_page *)(segment + at);
  n = page->n_rows;
  base = page->rows;
  segment = (const char *)ls_walk_segment(w, base >> LS_POOL_SEGMENT_SHIFT);
  if (!segment) return 0;
  base *= 4;
#define LS_STEP(step)                                                                  \
  do {                                                                                 \
    __u64 q = low + (step);                                                            \
    at = base + q * sizeof(struct ls_unwind_row);                                      \
    LS_HIDE(at);                                                                       \
    at &= LS_POOL_SEGMENT_BYTES - sizeof(struct ls_unwind_row);                        \
    low += ls_walk_both_negative(*(const __u16 *)(segment + at) - key - 1, q - n) * (step); \
  } while (0)
  /* A page of libc, libstdc++ or libLLVM has about 1,000 rows. */
  if (n > 2048) {
    LS_STEP(32768);
    LS_STEP(16384);
    LS_STEP(8192);
    LS_STEP(4096);
    LS_STEP(2048);
  }
  if (n > 256) {
    LS_STEP(1024);
    LS_STEP(512);
    LS_STEP(256);
  }
  LS_STEP(128);
  LS_STEP(64);
  LS_STEP(32);
  LS_STEP(16);
  LS_STEP(8);
  LS_STEP(4);
  LS_STEP(2);
  LS_STEP(1);
#undef LS_STEP
  at = base + low * sizeof(struct ls_unwind_row);
  LS_HIDE(at);
  at &= LS_POOL_SEGMENT_BYTES - sizeof(struct ls_unwind_row);
  return ls_walk_rule(w, ((const struct ls_unwind_row *)(segment + at))->rule);
}

/* How sure it is that there is a frame pointer. */
enum {
  LS_FP_GUESS = 0,
  LS_FP_KEPT = 1,  /* code made at run time that keeps them, on the thread's own stack */
  LS_FP_TABLE = 2, /* the table says so */
};

/* The caller by frame pointer. */
LS_WALK_INLINE int ls_walk_frame_pointer(struct ls_walk *w, __u32 sure)
{
  __u64 bp = 0, ip = 0;

  if (sure == LS_FP_GUESS) {
    w->out.flags |= LS_UNWIND_FP_GUESS;
    w->guessed = 1;
  }
  if (ls_walk_restore_bp(w)) return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_READ_FAULT);
  if (sure == LS_FP_TABLE) {
    /* The outermost frame has none (psABI 3.4.1). Go's stacks may lie anywhere:
     * systemstack and mcall go from one to another. */
    if (!w->bp) return ls_walk_stop(w, LS_UNWIND_COMPLETE);
  } else if (w->bp < w->sp || (w->bp & 7)) {
    return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_BAD_ADDRESS);
  }
  if (ls_walk_word(w, w->bp, &bp) || ls_walk_word(w, w->bp + 8, &ip))
    return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_READ_FAULT);
  w->sp = w->bp + 16;
  w->bp = bp;
  w->ip = ip;
  w->exact = 0;
  return LS_WALK_ON;
}

/* The frame that a signal interrupted, from the struct ucontext at rsp. */
LS_WALK_INLINE int ls_walk_signal(struct ls_walk *w)
{
  /* arch/x86/include/uapi/asm/sigcontext.h: uc_mcontext is at 40 */
  enum { LS_UC_RBP = 120, LS_UC_RSP = 160, LS_UC_RIP = 168 };
  __u64 ip = 0, sp = 0, bp = 0, context = w->sp;

  if (ls_walk_word(w, context + LS_UC_RBP, &bp) || ls_walk_word(w, context + LS_UC_RSP, &sp) ||
      ls_walk_word(w, context + LS_UC_RIP, &ip))
    return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_READ_FAULT);
  w->ip = ip;
  w->sp = sp;
  w->bp = bp;
  w->bp_slot = 0;
  w->exact = 1;
  return LS_WALK_ON;
}

/* The caller by a rule with a CFA. */
LS_WALK_INLINE int ls_walk_rule_frame(struct ls_walk *w, const struct ls_unwind_rule *rule, __u64 pc)
{
  __u32 kind = rule->cfa, bp_kind = rule->bp;
  __s64 offset = rule->cfa_offset;
  __s64 low = (__s16)offset, high = offset >> 16;
  __u64 cfa, slot = 0, from, ip = 0;

  if (kind == LS_CFA_BP || kind == LS_CFA_DEREF_BP || bp_kind == LS_BP_AT_BP) {
    if (ls_walk_restore_bp(w)) return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_READ_FAULT);
  }
  if (kind == LS_CFA_SP) {
    cfa = w->sp + offset;
  } else if (kind == LS_CFA_BP) {
    cfa = w->bp + offset;
  } else if (kind == LS_CFA_PLT) {
    cfa = w->sp + low + ((__s64)(pc & 15) >= high ? 8 : 0);
  } else {
    cfa = 0;
    if (ls_walk_word(w, (kind == LS_CFA_DEREF_BP ? w->bp : w->sp) + low, &cfa))
      return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_READ_FAULT);
    cfa += high;
  }
  /* Callers are further up: this also ends loops in nonsense. */
  if (cfa <= w->sp) return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_BAD_ADDRESS);

  if (bp_kind == LS_BP_AT_CFA) slot = cfa + rule->bp_offset;
  if (bp_kind == LS_BP_AT_BP) slot = w->bp + rule->bp_offset;
  if (bp_kind == LS_BP_UNKNOWN) {
    w->bp = 0;
    w->bp_slot = 0;
  }

  /* One window for both where they are near each other: rbp is saved below the
   * return address, mostly right below. */
  from = cfa - 8;
  if (slot && from - slot < LS_WALK_WINDOW_BYTES / 2 && !(slot & 7)) {
    if (ls_walk_word(w, slot, &w->bp))
      return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_READ_FAULT);
    w->bp_slot = 0;
  } else if (slot) {
    w->bp_slot = slot;
  }
  if (ls_walk_word(w, from, &ip))
    return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_READ_FAULT);
  w->ip = ip;
  w->sp = cfa;
  w->exact = 0;
  return LS_WALK_ON;
}

/* Notes the current frame and goes on to its caller. */
LS_WALK_INLINE int ls_walk_step(struct ls_walk *w)
{
  const struct ls_unwind_rule *rule = 0;
  __u64 pc = w->ip;
  __u32 n = w->out.n;
  __u32 kind, sure = LS_FP_GUESS;

  if (!pc && n) return ls_walk_stop(w, LS_UNWIND_COMPLETE);
  if (pc < 4096 || pc >> 47) return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_BAD_ADDRESS);
  if (!w->exact) pc--;
  if (n >= LS_UNWIND_MAX_FRAMES) return ls_walk_stop(w, LS_UNWIND_TRUNCATED);

  if (ls_walk_find_mapping(w, pc)) {
    rule = ls_walk_find_rule(w, pc);
    /* At a call only: elsewhere rbp may still, or again, be the caller's. */
    if (w->mapping.directory == LS_UNWIND_KEEPS_FP && !w->exact) sure = LS_FP_KEPT;
  } else {
    /* A guess that leads out of all code was wrong. */
    if (w->guessed && w->n_mappings)
      return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_BAD_ADDRESS);
    w->out.flags |= LS_UNWIND_NO_TABLE;
    if (w->n_mappings) ls_walk_ask(w, pc);
  }
  w->out.ips[n] = pc;
  w->out.n = n + 1;

  kind = LS_CFA_NONE;
  if (rule) kind = rule->cfa;
  if (kind == LS_CFA_NONE) return ls_walk_frame_pointer(w, sure);
  w->guessed = 0;
  if (kind == LS_CFA_END) return ls_walk_stop(w, LS_UNWIND_COMPLETE);
  if (kind == LS_CFA_FP) return ls_walk_frame_pointer(w, LS_FP_TABLE);
  if (kind == LS_CFA_SIGNAL) {
    /* Nobody called the trampoline: its first instruction comes next. */
    w->out.ips[n] = w->ip;
    return ls_walk_signal(w);
  }
  if (kind >= LS_CFA_UNSUPPORTED)
    return ls_walk_stop(w, LS_UNWIND_BROKEN | LS_UNWIND_BAD_RULE);
  return ls_walk_rule_frame(w, rule, pc);
}

/* Gets ready to walk from `regs`. */
LS_WALK_INLINE void ls_walk_start(struct ls_walk *w, const struct ls_user_regs *regs, __u32 tgid)
{
  w->ip = regs->ip;
  w->sp = regs->sp;
  w->bp = regs->bp;
  w->bp_slot = 0;
  w->exact = 1;
  w->guessed = 0;
  w->mappings = 0;
  w->n_mappings = 0;
  w->tgid = tgid;
  w->window_bytes = 0;
  w->mapping.start = 0;
  w->mapping.end = 0;
  w->out.n = 0;
  w->out.flags = 0;
}

#endif
