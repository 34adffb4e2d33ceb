/* Does what it is told to, a line at a time, and says "done" after each:
 *
 *   load FILE       dlopen
 *   work SECONDS    the loaded library's threads want one mutex
 *   unload          dlclose
 *   made SECONDS    threads want a mutex below code made at run time
 *   exec FILE       becomes FILE, without saying so
 *
 * The end of its input ends it. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void (*volatile made)(void (*)(void));
static double end;

static double now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

__attribute__((noipa)) void host_hold(void)
{
  pthread_mutex_lock(&lock);
  usleep(200);
  pthread_mutex_unlock(&lock);
}

static void *thread(void *unused)
{
  while (now() < end) made(host_hold);
  return unused;
}

static void work_below_made_code(double seconds)
{
  /* sub $8, %rsp; call *%rdi; add $8, %rsp; ret: no frame pointer, no table */
  static const unsigned char code[] = {0x48, 0x83, 0xec, 8, 0xff, 0xd7, 0x48, 0x83, 0xc4, 8, 0xc3};
  pthread_t threads[4];
  void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) exit(1);
  memcpy(page, code, sizeof code);
  mprotect(page, 4096, PROT_READ | PROT_EXEC);
  *(void **)&made = page;
  end = now() + seconds;
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, thread, 0);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
  munmap(page, 4096);
}

int main(void)
{
  char line[4096];
  void *library = 0;
  puts("ready");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    char *argument = strchr(line, ' ');
    line[strcspn(line, "\n")] = 0;
    if (argument) *argument++ = 0;
    if (!strcmp(line, "load")) {
      library = dlopen(argument, RTLD_NOW);
      if (!library) { fprintf(stderr, "%s\n", dlerror()); return 1; }
    } else if (!strcmp(line, "work")) {
      void (*work)(double) = 0;
      *(void **)&work = dlsym(library, "plugin_work");
      work(atof(argument));
    } else if (!strcmp(line, "unload")) {
      dlclose(library);
    } else if (!strcmp(line, "made")) {
      work_below_made_code(atof(argument));
    } else if (!strcmp(line, "exec")) {
      execl(argument, argument, (char *)0);
      return 1;
    } else {
      return 2;
    }
    puts("done");
    fflush(stdout);
  }
  return 0;
}
