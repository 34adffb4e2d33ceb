/* The maps of the futex tier, its settings, and the counters of loss.
 *
 * Sizes: about 40 MB in all, preallocated, within the 64 MB that the agent
 * may take. Full tables lose detail, never time: see books.bpf.h. */
#pragma once

#include "kernel_types.h"

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "events.h"

#define LS_INLINE static __always_inline
#include "sampling.h"

/* Settings, written before the programs are loaded. */
const volatile __u32 ls_filter_kind = LS_FILTER_ALL;
const volatile __u32 ls_own_tgid = 0;
const volatile __u32 ls_follow_forks = 0;
const volatile __u64 ls_hash_seed = 0;
const volatile __u32 ls_stack_rate = 0; /* stacks a second and CPU; 0: all */
const volatile __u32 ls_only_tgid = 0;  /* LS_FILTER_TGIDS: all that there will be; or 0 */
const volatile char ls_filter_comm[16] = {};

/* The capture spans [ls_start_ns, ls_stop_ns): every program compares its own
 * clock, so that the end is the same instant for all CPUs. */
volatile __u64 ls_start_ns = 0;
volatile __u64 ls_stop_ns = 0;

/* The task iterator's order: enter sleeping threads in the books, or only list
 * them. */
volatile __u32 ls_adopt_waits = 0;

#define LS_HASH(name_, key_, value_, entries_)          \
	struct {                                        \
		__uint(type, BPF_MAP_TYPE_HASH);        \
		__uint(max_entries, entries_);          \
		__type(key, key_);                      \
		__type(value, value_);                  \
	} name_ SEC(".maps")

LS_HASH(target_tgids, __u32, __u8, 8192);
LS_HASH(threads, __u32, struct ls_thread, 16384);
LS_HASH(locks, __u64, struct ls_lock, 16384);
LS_HASH(waits, struct ls_row_key, struct ls_wait_row, 16384);
LS_HASH(releases, struct ls_row_key, struct ls_release_row, 8192);
LS_HASH(pairs, struct ls_pair_key, struct ls_pair_row, 16384);
LS_HASH(stacks, struct ls_stack_key, struct ls_frames, 8192);
LS_HASH(processes, __u64, __u64, 8192); /* process -> when first seen, ns */

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} target_cgroup SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ls_cpu);
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} notices SEC(".maps");

static __always_inline struct ls_cpu *this_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cpus, &zero);
}

static __always_inline void count_n(__u32 counter, __u64 n)
{
	struct ls_cpu *cpu = this_cpu();

	if (cpu)
		cpu->counters[counter] += n;
}

static __always_inline void count(__u32 counter)
{
	count_n(counter, 1);
}

/* 32 random bits, never all 0. */
static __always_inline __u32 draw_random(struct ls_cpu *cpu)
{
	if (!cpu->random)
		cpu->random = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1;
	cpu->random = ls_next_random(cpu->random);
	return cpu->random >> 32 | 1;
}

/* The row under `key`, made of zeros if there is none yet; NULL if the table
 * is full. Two CPUs may race to make it: NOEXIST lets one win, both find it. */
static __always_inline void *find_or_make(void *map, const void *key, const void *zero)
{
	void *row = bpf_map_lookup_elem(map, key);

	if (row)
		return row;
	bpf_map_update_elem(map, key, zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, key);
}

static __always_inline void raise_u64(__u64 *slot, __u64 value)
{
#if LS_MODERN
	__u64 seen = *(volatile __u64 *)slot;

	for (int i = 0; i < 4 && seen < value; i++)
		seen = __sync_val_compare_and_swap(slot, seen, value);
#else
	/* No compare-and-swap before 5.12: two maxima at once may lose one. */
	if (*slot < value)
		*slot = value;
#endif
}

static __always_inline void set_bits_u32(__u32 *slot, __u32 bits)
{
	if ((*(volatile __u32 *)slot & bits) == bits)
		return;
#if LS_MODERN
	__sync_fetch_and_or(slot, bits);
#else
	*slot |= bits;
#endif
}

static __always_inline void set_thread_bit(__u64 *words, __u32 tid)
{
	__u64 bit = 1ULL << (tid & 63);
	__u64 *word = &words[(tid >> 6) & (LS_THREAD_BITS / 64 - 1)];

	if (*(volatile __u64 *)word & bit)
		return;
#if LS_MODERN
	__sync_fetch_and_or(word, bit);
#else
	*word |= bit;
#endif
}

static __always_inline int has_thread_bit(const __u64 *words, __u32 tid)
{
	return words[(tid >> 6) & (LS_THREAD_BITS / 64 - 1)] >> (tid & 63) & 1;
}

/* floor(log2(value)). Global, so that the verifier follows its 64 ways once and
 * not at every call. */
__noinline __u32 log2_of(__u64 value)
{
	__u32 log = 0;

	if (value >> 32) { log += 32; value >>= 32; }
	if (value >> 16) { log += 16; value >>= 16; }
	if (value >> 8) { log += 8; value >>= 8; }
	if (value >> 4) { log += 4; value >>= 4; }
	if (value >> 2) { log += 2; value >>= 2; }
	return log + (value >> 1);
}

/* The slot of a histogram that counts a duration. */
static __always_inline __u32 hist_slot(__u64 ns)
{
	__u32 slot = log2_of(ns);

	asm volatile("" : "+r"(slot)); /* or the bound may go */
	return slot < LS_HIST_SLOTS ? slot : LS_HIST_SLOTS - 1;
}

/* Seeded 64-bit mixing (the finalizer of MurmurHash3). A traced process knows
 * its own keys but not the seed, so it can't aim for a collision. */
static __always_inline __u64 mix(__u64 hash, __u64 value)
{
	hash ^= value;
	hash *= 0xff51afd7ed558ccdULL;
	hash ^= hash >> 33;
	hash *= 0xc4ceb9fe1a85ec53ULL;
	return hash ^ hash >> 33;
}

static __always_inline __u64 now_ticks_ns(void)
{
	return bpf_ktime_get_ns() & ~(__u64)(LS_TICK_NS - 1);
}
