/* A library whose threads want one mutex. Each call is a frame of its own, without frame pointer;
 * NAME, PADDING and FILLER tell two builds apart that take each other's place. */
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#ifndef NAME
#define NAME(what) plugin_##what
#endif
#ifndef PADDING
#define PADDING 8
#endif

#ifdef FILLER
#define TEXT_(bytes) #bytes
#define TEXT(bytes) TEXT_(bytes)
__asm__(".text\n.skip " TEXT(FILLER));
#endif

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile char sink;

static double now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

__attribute__((noipa)) void NAME(hold)(void)
{
  volatile char room[PADDING];
  room[0] = sink;
  pthread_mutex_lock(&lock);
  usleep(200);
  pthread_mutex_unlock(&lock);
  sink = room[0];
}

__attribute__((noipa)) void NAME(middle)(void)
{
  volatile char room[3 * PADDING];
  room[0] = sink;
  NAME(hold)();
  sink = room[0];
}

static void *thread(void *end)
{
  while (now() < *(double *)end) {
    NAME(middle)();
    sink++;
  }
  return 0;
}

void plugin_work(double seconds)
{
  pthread_t threads[4];
  double end = now() + seconds;
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, thread, &end);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
}
