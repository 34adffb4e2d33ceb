/* Threads with all sorts of stacks, in code without frame pointers: waits on
 * locks, signal handlers (also on a stack of their own), recursion, large and
 * realigned frames, leaf functions. Runs until killed. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile uint64_t sink;

static __attribute__((noinline)) uint64_t leaf(uint64_t x)
{
	for (int i = 0; i < 200; i++)
		x = x * 6364136223846793005ull + 1442695040888963407ull;
	return x;
}

static __attribute__((noinline)) uint64_t large_frame(uint64_t x)
{
	volatile char buffer[100000];

	buffer[x % sizeof(buffer)] = 1;
	pthread_mutex_lock(&lock);
	sink += leaf(x);
	pthread_mutex_unlock(&lock);
	return buffer[0] + x;
}

static __attribute__((noinline)) uint64_t realigned(uint64_t x)
{
	volatile char buffer[64] __attribute__((aligned(64)));

	for (int i = 0; i < 64; i++)
		buffer[i] = (char)leaf(x);
	pthread_mutex_lock(&lock);
	sink += leaf(x);
	pthread_mutex_unlock(&lock);
	return buffer[x % 64] + x;
}

static __attribute__((noinline)) uint64_t dynamic(uint64_t x)
{
	volatile char *buffer = __builtin_alloca(x % 500 + 16);

	buffer[0] = (char)x;
	return realigned(x) + buffer[0];
}

static __attribute__((noinline)) uint64_t recurse(int depth, uint64_t x)
{
	uint64_t r = depth ? recurse(depth - 1, leaf(x)) : (x & 1 ? large_frame(x) : dynamic(x));

	sink ^= r;
	return r + 1;
}

static int by_key(const void *a, const void *b)
{
	sink += leaf(1);
	return *(const int *)a - *(const int *)b;
}

static void on_signal(int signal)
{
	(void)signal;
	sink += recurse(2, sink & ~1ull);
	usleep(10);
}

static void *worker(void *argument)
{
	const uintptr_t n = (uintptr_t)argument;
	stack_t stack = { .ss_sp = malloc(1 << 18), .ss_size = 1 << 18 };
	int keys[64];

	if (n & 1)
		sigaltstack(&stack, NULL);
	for (uint64_t x = n;; x++) {
		recurse((int)(x % 40), leaf(x));
		for (int i = 0; i < 64; i++)
			keys[i] = rand();
		qsort(keys, 64, sizeof(int), by_key);
		if (x % 64 == 0)
			pthread_kill(pthread_self(), SIGUSR2);
		if (x % 1024 == 0)
			recurse(200, x);
		if (x % 16 == 0)
			usleep(50);
	}
	return NULL;
}

int main(void)
{
	struct sigaction action;
	struct itimerval timer = { { 0, 3000 }, { 0, 3000 } };
	pthread_t threads[4];

	memset(&action, 0, sizeof(action));
	action.sa_handler = on_signal;
	action.sa_flags = SA_ONSTACK | SA_RESTART | SA_NODEFER;
	sigaction(SIGUSR2, &action, NULL);
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, worker, (void *)i);
	setitimer(ITIMER_REAL, &timer, NULL);
	for (;;)
		pause();
}
