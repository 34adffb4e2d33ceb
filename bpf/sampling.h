/* Which events' stacks are taken, when there are more than a given rate.
 *
 * An event's mass is the time it stands for: of a wait how long it was, of a
 * release the waiting charged to it, or the hold it ended. Its stack is taken
 * with the probability (mass + floor) / threshold, 1 above the threshold: half of
 * the sample in proportion to time, so that it finds where the time goes and has
 * all that is long, and half in proportion to events, so that no event stands
 * for very many. Weighted by the inverse, the sample is unbiased, whatever the
 * odds, as long as they do not depend on the event itself: they are made of
 * those before it. Each CPU has its own; the floor is the mean mass, and the
 * threshold such that a window's stacks come to the rate.
 *
 * A wait and the release that ends it decide by the same random number, or in a
 * sample of one in a hundred their stacks would meet once in ten thousand.
 *
 * Compiles for BPF and for user space, which undoes the weights and tests them. */
#pragma once

#include "events.h"

#ifndef LS_INLINE
#define LS_INLINE static inline
#endif

/* Long enough that a burst is no overload; short enough to follow a load. */
#define LS_WINDOW_NS 100000000ULL

/* Of an event's mass, while there is no threshold yet, to make the first of. */
#define LS_FIRST_MASS_MAX (1ULL << 20)

#define LS_THRESHOLD_MAX (1ULL << 31)

/* A probability of 32 bits, but that this one stands for 1. */
#define LS_CERTAIN 0xffffffffU

#define LS_WEIGHT_SHIFT 16

/* Of 1 / probability: a million, far beyond any load. */
#define LS_INVERSE_MAX (1ULL << 36)

/* Marsaglia's xorshift: a call of the kernel's generator costs as much as a
 * look-up in a map. `state` is not 0, nor becomes it. */
LS_INLINE __u64 ls_next_random(__u64 state)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^ state << 17;
}

LS_INLINE void ls_set_odds(struct ls_cpu *cpu, __u64 stacks)
{
	/* The mass, and as much again for the floor; at least 1, for 0 is certainty. */
	__u64 threshold = 2 * cpu->mass / stacks + 1;

	cpu->odds.floor = cpu->mass / cpu->events;
	cpu->odds.threshold = threshold < LS_THRESHOLD_MAX ? threshold : LS_THRESHOLD_MAX;
}

/* An event of this mass has happened. What is above the threshold is in the
 * sample once, however long: it counts for as much as that, and a few long waits
 * do not crowd the short ones of a hot lock out. */
LS_INLINE void ls_count_event(struct ls_cpu *cpu, __u32 rate, __u64 mass, __u64 now)
{
	__u64 elapsed = now - cpu->window_ns, budget, most;

	cpu->counters[LS_COUNT_EVENTS]++;
	if (!rate)
		return;
	budget = (rate * LS_WINDOW_NS + 999999999) / 1000000000;
	if (elapsed >= LS_WINDOW_NS) {
		/* After a longer pause as many windows' worth. */
		__u64 allowed = budget * (elapsed / LS_WINDOW_NS);

		if (cpu->events > allowed)
			ls_set_odds(cpu, allowed);
		else
			cpu->odds.threshold = 0;
		cpu->window_ns = now;
		cpu->events = 0;
		cpu->mass = 0;
	}
	most = cpu->odds.threshold ? cpu->odds.threshold : LS_FIRST_MASS_MAX;
	cpu->events++;
	cpu->mass += mass < most ? mass : most;
	/* More in this window than was to be expected: don't wait for its end. */
	if (cpu->events > budget && 2 * cpu->mass > cpu->odds.threshold * budget)
		ls_set_odds(cpu, budget);
}

/* Of 2^32; LS_CERTAIN is one. */
LS_INLINE __u32 ls_probability_of(__u64 mass, struct ls_odds odds)
{
	mass += odds.floor;
	return mass >= odds.threshold ? LS_CERTAIN : (mass << 32) / odds.threshold;
}

/* The same decision as random < ls_probability_of(), without a division. */
LS_INLINE int ls_is_sampled(__u64 mass, struct ls_odds odds, __u32 random)
{
	return mass + odds.floor >= odds.threshold ||
	       ((__u64)random * odds.threshold) >> 32 < mass + odds.floor;
}

/* 1 / probability, with LS_WEIGHT_SHIFT binary places. */
LS_INLINE __u64 ls_inverse_of(__u32 probability)
{
	__u64 inverse;

	if (probability == LS_CERTAIN || !probability)
		return 1 << LS_WEIGHT_SHIFT;
	inverse = (1ULL << (32 + LS_WEIGHT_SHIFT)) / probability;
	return inverse < LS_INVERSE_MAX ? inverse : LS_INVERSE_MAX;
}

/* Does not overflow, because of LS_INVERSE_MAX, below 2^44 ns (4.8 hours). */
LS_INLINE __u64 ls_weigh(__u64 amount, __u64 inverse)
{
	const __u64 mask = (1 << LS_WEIGHT_SHIFT) - 1;

	return (amount >> LS_WEIGHT_SHIFT) * inverse +
	       ((amount & mask) * inverse >> LS_WEIGHT_SHIFT);
}

/* What a wait of this length stands for, itself included. */
LS_INLINE __u64 ls_weight_of_wait(__u64 ns, struct ls_odds odds)
{
	return ls_weigh(ns, ls_inverse_of(ls_probability_of(ns, odds)));
}
