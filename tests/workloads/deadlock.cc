// Threads that will never go on, in one of the ways that programs have, beside healthy ones.
//
//   --mode cycle      three threads hold one mutex each and want the next one's; a fourth waits behind
//   --mode self       a thread locks a mutex that it holds already
//   --mode forgotten  a thread returned without unlocking and waits for work since; two wait for it
//   --mode ended      the same, but the thread has ended
//   --mode timed      a cycle of two that gives up after the time-out of an hour
//   --mode join       a thread joins another that waits for the mutex that the first one holds
//   --mode healthy    nothing of that
//
// In all modes three threads contend for a mutex of theirs, holding it asleep, and one waits for work.
// The JSON line says who holds what ("tids", "locks": the i-th thread holds the i-th lock) and who
// waits behind. Ends when killed, or after --seconds.
#include <sys/syscall.h>

#include <fstream>
#include <thread>

#include "workload.h"

namespace {

pthread_mutex_t lock_a = PTHREAD_MUTEX_INITIALIZER;
pthread_mutex_t lock_b = PTHREAD_MUTEX_INITIALIZER;
pthread_mutex_t lock_c = PTHREAD_MUTEX_INITIALIZER;
pthread_mutex_t* const locks[] = {&lock_a, &lock_b, &lock_c};

pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER;
pthread_mutex_t work_mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t work = PTHREAD_COND_INITIALIZER;

std::atomic<pid_t> tids[3], behind[2];
size_t n_behind = 0;
std::atomic<int> holding{0};

void join_ring(size_t index, size_t size, bool timed) {
  pthread_mutex_lock(locks[index]);
  tids[index] = gettid();
  holding++;
  while (holding < int(size)) usleep(1000);
  pthread_mutex_t* next = locks[(index + 1) % size];
  timespec hour;
  clock_gettime(CLOCK_REALTIME, &hour);
  hour.tv_sec += 3600;
  timed ? pthread_mutex_timedlock(next, &hour) : pthread_mutex_lock(next);
}

OWN_FRAME void wait_for_work() {
  pthread_mutex_lock(&work_mutex);
  while (true) pthread_cond_wait(&work, &work_mutex);
}

OWN_FRAME void forget_to_unlock() {
  pthread_mutex_lock(&lock_a);
  tids[0] = gettid();
  holding++;
  workload::keep_frame();
}

OWN_FRAME void wait_behind() {
  pthread_mutex_lock(&lock_a);
  workload::keep_frame();
}

OWN_FRAME void contend() {
  while (true) {
    pthread_mutex_lock(&busy);
    usleep(1000);
    pthread_mutex_unlock(&busy);
    workload::burn_ns(100'000);
  }
}

void start(std::function<void()> body) { std::thread(std::move(body)).detach(); }

void start_behind(int count) {
  n_behind = size_t(count);
  for (int i = 0; i < count; i++) {
    start([i] {
      behind[size_t(i)] = gettid();
      wait_behind();
    });
  }
}

// Returns how many threads are in trouble.
size_t make_trouble(const std::string& mode) {
  if (mode == "healthy") return 0;
  const bool is_ring = mode == "cycle" || mode == "timed";
  const size_t size = mode == "cycle" ? 3 : mode == "timed" ? 2 : 1;
  if (is_ring) {
    for (size_t i = 0; i < size; i++) start([=] { join_ring(i, size, mode == "timed"); });
  } else if (mode == "self") {
    start([] { forget_to_unlock(); pthread_mutex_lock(&lock_a); });
  } else if (mode == "forgotten") {
    start([] { forget_to_unlock(); wait_for_work(); });
  } else if (mode == "ended") {
    start([] { forget_to_unlock(); });
  } else if (mode == "join") {
    start([] {
      forget_to_unlock();
      std::thread([] { pthread_mutex_lock(&lock_a); }).join();
    });
  } else {
    fprintf(stderr, "deadlock: no such mode: %s\n", mode.c_str());
    exit(2);
  }
  while (holding < int(size)) usleep(1000);
  start_behind(mode == "forgotten" || mode == "ended" ? 2 : 1);
  return size;
}

std::string call_of(pid_t tid) {
  std::ifstream file("/proc/self/task/" + std::to_string(tid) + "/syscall");
  std::string line;
  return std::getline(file, line) ? line : "gone";
}

// `tid` is set by the thread itself.
void until_in_futex(const std::atomic<pid_t>& tid) {
  while (tid == 0 || !call_of(tid).starts_with(std::to_string(SYS_futex) + " ")) usleep(1000);
}

void until_gone(pid_t tid) {
  while (call_of(tid) != "gone") usleep(1000);
}

void print_list(const char* name, const std::atomic<pid_t>* list, size_t size) {
  printf(", \"%s\": [", name);
  for (size_t i = 0; i < size; i++) printf("%s%d", i ? ", " : "", list[i].load());
  printf("]");
}

}  // namespace

int main(int argc, char** argv) {
  workload::Options options(argc, argv,
                            {{"mode", "cycle", "what is wrong: see the source"},
                             {"seconds", "60", "how long to stay"}});
  const std::string mode = options.text("mode");
  const size_t n_tids = make_trouble(mode);
  for (int i = 0; i < 3; i++) start(contend);
  start(wait_for_work);
  for (size_t i = 0; i < n_behind; i++) until_in_futex(behind[i]);
  for (size_t i = 0; i < n_tids; i++) mode == "ended" ? until_gone(tids[i]) : until_in_futex(tids[i]);
  printf("{\"pid\": %d", getpid());
  print_list("tids", tids, n_tids);
  print_list("behind", behind, n_behind);
  printf(", \"locks\": [\"%p\", \"%p\", \"%p\"]}\n", (void*)&lock_a, (void*)&lock_b, (void*)&lock_c);
  fflush(stdout);
  sleep(unsigned(options.count("seconds")));
  _exit(0);
}
