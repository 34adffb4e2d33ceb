// Many threads, each asleep in one thing for ever: a mutex, a condition variable, a semaphore, a join,
// a read from a pipe, a sleep. One more thread runs all the time and counts.
//
// A right tracer, asked once all are parked, lists every thread where the JSON line says, with its
// whole stack (park_... under twenty frames of descend); asleep since `first_parked_ns` at the
// earliest and `last_parked_ns` at the latest (CLOCK_MONOTONIC). The mutexes are held by the main
// thread. The count goes on in `--progress-file`, 8 bytes, whoever looks. Ends when killed, or after
// --seconds.
#include <fcntl.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <fstream>

#include "workload.h"

namespace {

constexpr size_t kKinds = 6;
const char* const kNames[kKinds] = {"mutex", "cond", "sem", "join", "read", "nanosleep"};

pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
pthread_mutex_t queue_mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t queue_filled = PTHREAD_COND_INITIALIZER;
sem_t permits;
int empty_pipe[2];

struct Parked {
  size_t kind = 0;
  pid_t tid = 0;
  uint64_t since_ns = 0;
  pthread_t thread{}, joined{};  // joined: by Join alone
};

OWN_FRAME void park_mutex() {
  pthread_mutex_lock(&held);
  workload::keep_frame();
}
OWN_FRAME void park_cond() {
  pthread_mutex_lock(&queue_mutex);
  while (true) pthread_cond_wait(&queue_filled, &queue_mutex);
}
OWN_FRAME void park_sem() {
  sem_wait(&permits);
  workload::keep_frame();
}
OWN_FRAME void park_join(pthread_t other) {
  pthread_join(other, nullptr);
  workload::keep_frame();
}
OWN_FRAME void park_read() {
  char byte;
  [[maybe_unused]] const ssize_t n = read(empty_pipe[0], &byte, 1);
  workload::keep_frame();
}
OWN_FRAME void park_nanosleep() {
  const timespec long_time = {3600, 0};
  while (true) nanosleep(&long_time, nullptr);
}

OWN_FRAME void descend(int depth, Parked& parked) {
  if (depth > 0) {
    descend(depth - 1, parked);
    return workload::keep_frame();
  }
  parked.since_ns = workload::now_ns();
  __atomic_store_n(&parked.tid, gettid(), __ATOMIC_RELEASE);
  switch (parked.kind) {
    case 0: park_mutex(); break;
    case 1: park_cond(); break;
    case 2: park_sem(); break;
    case 3: park_join(parked.joined); break;
    case 4: park_read(); break;
    default: park_nanosleep();
  }
  workload::keep_frame();
}

void* enter(void* argument) {
  descend(20, *static_cast<Parked*>(argument));
  return nullptr;
}

void* count_on(void* counter) {
  while (true) __atomic_add_fetch(static_cast<uint64_t*>(counter), 1, __ATOMIC_RELAXED);
}

uint64_t* make_counter(const std::string& path) {
  const int fd = path.empty() ? -1 : open(path.c_str(), O_RDWR | O_CREAT, 0644);
  if (fd >= 0 && ftruncate(fd, sizeof(uint64_t)) != 0) abort();
  void* memory = mmap(nullptr, sizeof(uint64_t), PROT_READ | PROT_WRITE,
                      fd >= 0 ? MAP_SHARED : MAP_SHARED | MAP_ANONYMOUS, fd, 0);
  if (memory == MAP_FAILED) abort();
  return static_cast<uint64_t*>(memory);
}

bool is_asleep(const Parked& parked) {
  const pid_t tid = __atomic_load_n(&parked.tid, __ATOMIC_ACQUIRE);
  if (tid == 0) return false;
  std::ifstream file("/proc/self/task/" + std::to_string(tid) + "/stat");
  std::string line;
  std::getline(file, line);
  const size_t after_name = line.rfind(") ");
  return after_name != std::string::npos && line[after_name + 2] == 'S';
}

}  // namespace

int main(int argc, char** argv) {
  workload::Options options(argc, argv,
                            {{"threads", "1000", "how many to park"},
                             {"progress-file", "", "count here, in 8 bytes"},
                             {"seconds", "60", "how long to stay"}});
  if (sem_init(&permits, 0, 0) != 0 || pipe(empty_pipe) != 0) return 1;
  pthread_mutex_lock(&held);
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 64 << 10);
  pthread_t counter;
  if (pthread_create(&counter, &small, count_on, make_counter(options.text("progress-file")))) return 1;

  std::vector<Parked> all(options.count("threads"));
  size_t kinds[kKinds] = {};
  for (size_t i = 0; i < all.size(); i++) {
    // In turns, so that the one to be joined, a sleeper, is always there already.
    all[i].kind = (kKinds - 1 + i) % kKinds;
    if (kNames[all[i].kind] == std::string("join")) all[i].joined = all[i - 4].thread;
    kinds[all[i].kind]++;
    if (pthread_create(&all[i].thread, &small, enter, &all[i])) return 1;
  }
  while (!std::all_of(all.begin(), all.end(), is_asleep)) usleep(10000);

  const auto [first, last] = std::minmax_element(
      all.begin(), all.end(), [](const Parked& a, const Parked& b) { return a.since_ns < b.since_ns; });
  workload::Report report("parked");
  report.number("pid", uint64_t(getpid())).number("threads", uint64_t(all.size()));
  for (size_t kind = 0; kind < kKinds; kind++) report.number(kNames[kind], uint64_t(kinds[kind]));
  report.number("first_parked_ns", first->since_ns).number("last_parked_ns", last->since_ns);
  report.address("held", &held).print();
  sleep(unsigned(options.count("seconds")));
  _exit(0);
}
