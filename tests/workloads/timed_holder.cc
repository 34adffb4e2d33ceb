// Writers of a journal behind one mutex, whose holders compute and then block, while others
// compete with them for the CPUs.
//
// A right tracer sees: contended holds of hold_ns / holds each, of which the threads were on a CPU for
// running_ns and ready to run without one for runnable_ns; the rest they were blocked, under
// Journal::flush, in the call that --block says. all_* are the same of all holds.
#include <fcntl.h>

#include "workload.h"

using namespace workload;

uint64_t thread_cpu_ns() {
  timespec cpu;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
  return uint64_t(cpu.tv_sec) * 1'000'000'000 + uint64_t(cpu.tv_nsec);
}

// Where a thread's time went so far, by the kernel's own books.
class OwnClocks {
 public:
  struct Times {
    uint64_t at_ns = 0, running_ns = 0, runnable_ns = 0;
  };
  OwnClocks() : fd_(open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) abort();
  }
  ~OwnClocks() { close(fd_); }
  OwnClocks(const OwnClocks&) = delete;
  OwnClocks& operator=(const OwnClocks&) = delete;

  Times now() const {
    Times times;
    times.at_ns = now_ns();
    char text[96];
    const ssize_t size = pread(fd_, text, sizeof text - 1, 0);
    if (size <= 0) abort();
    text[size] = '\0';
    unsigned long long ran, waited;
    if (sscanf(text, "%llu %llu", &ran, &waited) != 2) abort();
    times.running_ns = thread_cpu_ns();  // the file's first number is a tick old
    times.runnable_ns = waited;
    return times;
  }

 private:
  int fd_;
};

struct Parts {
  uint64_t running_ns = 0, runnable_ns = 0;

  // A hold of this length and processor time, with the clocks read near its two ends. Off
  // the CPU outside of these it was runnable: nothing blocks there.
  void add(uint64_t held_ns, uint64_t ran_ns, const OwnClocks::Times& from,
           const OwnClocks::Times& to) {
    const uint64_t outside_ns = held_ns - (to.at_ns - from.at_ns);
    const uint64_t ran_outside_ns = ran_ns - (to.running_ns - from.running_ns);
    running_ns += ran_ns;
    runnable_ns += to.runnable_ns - from.runnable_ns;
    if (outside_ns > ran_outside_ns) runnable_ns += outside_ns - ran_outside_ns;
  }
  void add(const Parts& other) {
    running_ns += other.running_ns;
    runnable_ns += other.runnable_ns;
  }
};

struct alignas(128) HolderLedger {
  Parts contended, all;
};

enum Block { kSleep, kSync, kLock, kNothing };

struct Settings {
  uint64_t run_ns, block_ns, think_ns;
  size_t block;
};

class Journal {
 public:
  explicit Journal(const Settings& settings) : settings_(settings) {
    if (settings.block != kSync) return;
    char path[] = "/var/tmp/journal-XXXXXX";
    file_ = mkstemp(path);
    if (file_ < 0) abort();
    unlink(path);
  }

  OWN_FRAME void append(Ledger& ledger, HolderLedger& parts, const OwnClocks& clocks) {
    const Acquired acquired = acquire(
        ledger, [this] { return pthread_mutex_trylock(&mutex_) == 0; },
        [this] { pthread_mutex_lock(&mutex_); });
    const uint64_t ran_before = thread_cpu_ns();
    const OwnClocks::Times from = clocks.now();
    encode();
    flush();
    const OwnClocks::Times to = clocks.now();
    const uint64_t held_before = ledger.all_hold_ns;
    end_hold(ledger, acquired);
    const uint64_t held_ns = ledger.all_hold_ns - held_before;
    const uint64_t ran_ns = thread_cpu_ns() - ran_before;
    pthread_mutex_unlock(&mutex_);
    if (acquired.contended) parts.contended.add(held_ns, ran_ns, from, to);
    parts.all.add(held_ns, ran_ns, from, to);
    keep_frame();
  }

  // Holds what append() needs, most of the time.
  OWN_FRAME void rotate() {
    pthread_mutex_lock(&segment_);
    sleep_ns(settings_.block_ns);
    pthread_mutex_unlock(&segment_);
    keep_frame();
  }

  pthread_mutex_t* mutex() { return &mutex_; }

 private:
  OWN_FRAME void encode() {
    burn_ns(settings_.run_ns);
    keep_frame();
  }

  OWN_FRAME void flush() {
    const char record[64] = {};
    switch (settings_.block) {
      case kSleep: sleep_ns(settings_.block_ns); break;
      case kSync:
        if (pwrite(file_, record, sizeof record, 0) != sizeof record || fdatasync(file_) != 0) abort();
        break;
      case kLock:
        pthread_mutex_lock(&segment_);
        pthread_mutex_unlock(&segment_);
        break;
      case kNothing: break;
    }
    keep_frame();
  }

  const Settings& settings_;
  int file_ = -1;
  alignas(64) pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  alignas(64) pthread_mutex_t segment_ = PTHREAD_MUTEX_INITIALIZER;
};

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"threads", "3", "writers"},
                   {"burners", "2", "threads that only compute"},
                   {"run-us", "1000", "computing in the critical section"},
                   {"block", "sleep", "how a holder blocks: sleep, sync (fdatasync), lock or nothing"},
                   {"block-us", "1000", "for how long, if it sleeps or for a lock"},
                   {"think-us", "500", "asleep between two appends"}});
  const Settings settings{options.us_in_ns("run-us"), options.us_in_ns("block-us"),
                          options.us_in_ns("think-us"),
                          options.choice("block", {"sleep", "sync", "lock", "nothing"})};
  const size_t threads = options.count("threads");

  Run run(options);
  Crew crew;
  Ledger main_ledger;
  std::vector<Ledger> ledgers(threads);
  std::vector<HolderLedger> parts(threads);
  Journal journal(settings);
  for (size_t i = 0; i < threads; ++i) {
    crew.add([&, i] {
      const OwnClocks clocks;
      while (!run.over()) {
        sleep_ns(settings.think_ns);
        journal.append(ledgers[i], parts[i], clocks);
      }
    });
  }
  for (size_t i = 0; i < options.count("burners"); ++i) {
    crew.add([&] {
      while (!run.over()) burn_ns(100'000);
    });
  }
  if (settings.block == kLock) {
    crew.add([&] {
      while (!run.over()) {
        journal.rotate();
        sleep_ns(100'000);
      }
    });
  }
  crew.run(run, main_ledger);

  Parts contended, all;
  for (const HolderLedger& ledger : parts) {
    contended.add(ledger.contended);
    all.add(ledger.all);
  }
  Report("timed_holder")
      .run(run)
      .text("block", options.text("block"))
      .address("lock_address", journal.mutex())
      .number("running_ns", contended.running_ns)
      .number("runnable_ns", contended.runnable_ns)
      .number("all_running_ns", all.running_ns)
      .number("all_runnable_ns", all.runnable_ns)
      .ledger(sum(ledgers, main_ledger))
      .print();
}
