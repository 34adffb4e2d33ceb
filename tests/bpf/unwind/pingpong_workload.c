/* Two threads that hand a futex to and fro, called from DEPTH frames without
 * frame pointers. Waits for SIGUSR1, then prints ns per futex call.
 *
 *   pingpong_workload DEPTH CALLS */
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

static uint32_t word;
static long calls;
static volatile uint64_t sink;

/* Wakes nobody: the cheapest futex call there is, so that what is added shows. */
static __attribute__((noinline)) uint64_t run(long n)
{
	for (long i = 0; i < n; i++)
		syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
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
	struct timespec a, b;
	/* main, run, syscall() and libc's two around main are there anyhow, so is _start. */
	const int depth = (argc > 1 ? atoi(argv[1]) : 12) - 7;

	calls = argc > 2 ? atol(argv[2]) : 1000000;
	signal(SIGUSR1, on_signal);
	pause();
	clock_gettime(CLOCK_MONOTONIC, &a);
	sink += recurse(depth);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%.1f ns\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / calls);
	return 0;
}
