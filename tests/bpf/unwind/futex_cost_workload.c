/* Futex calls from DEPTH frames without frame pointers. Waits for SIGUSR1, then
 * prints ns per call: of the quickest thousand, since a busy machine only ever
 * adds.
 *
 *   futex_cost_workload DEPTH CALLS */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 1000 };

static uint32_t word;
static double best = 1e9;
static long calls;
static volatile uint64_t sink;

/* Wakes nobody: the cheapest futex call there is, so that what is added shows. */
static __attribute__((noinline)) uint64_t run(long n)
{
	struct timespec a, b;

	for (long i = 0; i < n; i += BATCH) {
		double ns;

		clock_gettime(CLOCK_MONOTONIC, &a);
		for (int k = 0; k < BATCH; k++)
			syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
		clock_gettime(CLOCK_MONOTONIC, &b);
		ns = ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / BATCH;
		if (ns < best)
			best = ns;
	}
	return sink;
}

static __attribute__((noinline)) uint64_t recurse(int depth)
{
	uint64_t r = depth > 0 ? recurse(depth - 1) : run(calls);

	sink ^= r;
	return r + 1;
}

static void on_signal(int signal)
{
	(void)signal;
}

int main(int argc, char **argv)
{
	/* main, run, syscall() and libc's two around main are there anyhow, so is _start. */
	const int depth = (argc > 1 ? atoi(argv[1]) : 12) - 7;

	calls = argc > 2 ? atol(argv[2]) : 1000000;
	signal(SIGUSR1, on_signal);
	pause();
	sink += recurse(depth);
	printf("%.1f ns\n", best);
	return 0;
}
