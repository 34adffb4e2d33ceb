// An order book in a world where nothing lives long: threads and processes that die waiting, die
// holding, exec while others wait, fork while the lock is contended, and whose numbers are reused.
//
// A right tracer must come out with its books straight: blame = waiting, no negative or absurd time
// (no wait is longer than the run), nothing left in its tables for what is gone, a lock's new
// owner never charged for the old process at the same PID and address.
//
// One round does each of these once; `rounds` says how many rounds there were:
//   threads   short-lived threads that take the lock --turns times and exit
//   robust    a thread exits holding a robust mutex: the kernel wakes the waiter (EOWNERDEAD)
//   forsaken  a thread exits holding a plain mutex: the waiters give up (abandoned_wait_ns)
//   killed    a process is killed with SIGKILL while three of its threads wait
//   exited    a process calls _exit while three of its threads wait
//   exec      a process execs (this program, as `exec-child`) while three of its threads wait, and
//             contends again under the same PID
//   fork      a fork while the lock is contended; the child contends on its own copy
//
// lock_wait_ns: completed waits, of this process and of every child that lived to tell
// (children_lock_wait_ns is their share). killed_wait_ns: waits that death or exec cut off, up to
// that moment (killed: as the killer saw it; in a tracer a little longer). abandoned_wait_ns: waits
// that were given up. All three are lock waiting, and none is contained in another.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "workload.h"

using namespace workload;

constexpr size_t kDoomed = 3;

// Between a parent and its child, in a memfd that survives exec.
struct Shared {
  std::atomic<uint64_t> waiting_since[kDoomed];
  std::atomic<uint64_t> ended_ns;
  Ledger told;  // by a child that lived to tell
};
static int shared_fd;
static Shared* shared;

class OrderBook {
 public:
  explicit OrderBook(bool robust = false) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    if (robust) pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&mutex_, &attributes);
    pthread_mutexattr_destroy(&attributes);
  }
  OWN_FRAME void book(uint64_t hold_ns, Ledger& ledger) {
    Acquired acquired = acquire(
        ledger, [this] { return owned(pthread_mutex_trylock(&mutex_)); },
        [this] { owned(pthread_mutex_lock(&mutex_)); });
    sleep_ns(hold_ns);
    end_hold(ledger, acquired);
    pthread_mutex_unlock(&mutex_);
    keep_frame();
  }
  // Leaves without the lock after the limit; returns the time waited.
  OWN_FRAME uint64_t give_up_after(uint64_t limit_ns) {
    uint64_t before = now_ns();
    timespec deadline = to_timespec(before + limit_ns);
    if (pthread_mutex_clocklock(&mutex_, CLOCK_MONOTONIC, &deadline) == 0) abort();
    return now_ns() - before;
  }
  OWN_FRAME void take_and_keep() {
    pthread_mutex_lock(&mutex_);
    keep_frame();
  }
  OWN_FRAME void wait_for_ever(std::atomic<uint64_t>& since) {
    since = now_ns();
    pthread_mutex_lock(&mutex_);
    keep_frame();
  }

 private:
  // A dead owner's robust mutex comes with an error, but it comes.
  bool owned(int error) {
    if (error == EOWNERDEAD) pthread_mutex_consistent(&mutex_);
    return error == 0 || error == EOWNERDEAD;
  }

  alignas(64) pthread_mutex_t mutex_;
};

// A thread that runs `body`; joined in wait().
class Thread {
 public:
  explicit Thread(std::function<void()> body) : body_(std::move(body)) {
    if (pthread_create(&thread_, nullptr, enter, this) != 0) abort();
  }
  void wait(Ledger& ledger) { join(ledger, thread_); }

 private:
  static void* enter(void* self) {
    static_cast<Thread*>(self)->body_();
    return nullptr;
  }
  std::function<void()> body_;
  pthread_t thread_;
};
using Threads = std::vector<std::unique_ptr<Thread>>;

class Exchange {
 public:
  Exchange(size_t threads, uint64_t turns, uint64_t hold_ns, bool reuse_pids)
      : threads_(threads), turns_(turns), hold_ns_(hold_ns), reuse_pids_(reuse_pids) {}

  OWN_FRAME void round() {
    short_lived_threads(threads_, ledger);
    die_holding_robust();
    die_holding_plain();
    child_dies("killed");
    child_dies("exited");
    child_dies("exec");
    fork_while_contended();
    ++rounds;
  }

  OWN_FRAME void short_lived_threads(size_t count, Ledger& into) {
    OrderBook book;
    std::vector<Ledger> ledgers(count);
    Threads threads;
    for (Ledger& own : ledgers) {
      threads.push_back(std::make_unique<Thread>([&] {
        for (uint64_t i = 0; i < turns_; ++i) book.book(hold_ns_, own);
      }));
    }
    for (auto& thread : threads) thread->wait(into);
    for (const Ledger& own : ledgers) into.add(own);
    threads_started += count;
  }

  Ledger ledger;
  uint64_t rounds = 0, threads_started = 0, processes_started = 0, execs = 0, pids_reused = 0;
  uint64_t died_holding = 0, killed_waits = 0, killed_wait_ns = 0;
  uint64_t abandoned_waits = 0, abandoned_wait_ns = 0;
  Ledger children;

 private:
  OWN_FRAME void die_holding_robust() {
    OrderBook book(true);
    Thread owner([&] {
      book.take_and_keep();
      sleep_ns(3'000'000);
    });
    sleep_ns(1'000'000);
    Ledger heir;
    Thread waiter([&] { book.book(hold_ns_, heir); });
    owner.wait(ledger);
    waiter.wait(ledger);
    ledger.add(heir);
    ++died_holding;
    threads_started += 2;
  }
  OWN_FRAME void die_holding_plain() {
    OrderBook book;
    Thread owner([&] { book.take_and_keep(); });
    owner.wait(ledger);
    Threads waiters;
    std::atomic<uint64_t> waited_ns{0};
    for (size_t i = 0; i < 2; ++i)
      waiters.push_back(
          std::make_unique<Thread>([&] { waited_ns += book.give_up_after(3'000'000); }));
    for (auto& waiter : waiters) waiter->wait(ledger);
    abandoned_wait_ns += waited_ns;
    abandoned_waits += waiters.size();
    ++died_holding;
    threads_started += 3;
  }

  OWN_FRAME void child_dies(std::string_view how) {
    reset_shared();
    pid_t child = start_child();
    if (child == 0) {
      be_doomed(how);
      _exit(0);
    }
    while (!shared->waiting_since[kDoomed - 1].load()) sleep_ns(500'000);
    if (how == "killed") {
      sleep_ns(5'000'000);
      shared->ended_ns = now_ns();
      kill(child, SIGKILL);
    }
    reap(child);
    for (const auto& since : shared->waiting_since) killed_wait_ns += shared->ended_ns - since;
    killed_waits += kDoomed;
    execs += how == "exec";
  }
  // In the child. Waits until it is killed, exits, or execs with its threads still waiting.
  [[noreturn]] OWN_FRAME void be_doomed(std::string_view how) {
    OrderBook book;
    book.take_and_keep();
    Threads threads;
    for (auto& since : shared->waiting_since) {
      threads.push_back(std::make_unique<Thread>([&] { book.wait_for_ever(since); }));
      while (!since.load()) sleep_ns(200'000);
    }
    if (how == "killed")
      while (true) pause();
    sleep_ns(5'000'000);
    shared->ended_ns = now_ns();
    if (how == "exec") {
      std::string fd = std::to_string(shared_fd);
      execl("/proc/self/exe", "churn", "exec-child", fd.c_str(), nullptr);
    }
    _exit(0);
  }

  OWN_FRAME void fork_while_contended() {
    reset_shared();
    OrderBook book;
    Ledger ledgers[2];
    std::atomic<bool> stop{false};
    Thread one([&] {
      while (!stop) book.book(hold_ns_, ledgers[0]);
    });
    Thread two([&] {
      while (!stop) book.book(hold_ns_, ledgers[1]);
    });
    sleep_ns(2'000'000);
    pid_t child = start_child();
    if (child == 0) report_burst();
    reap(child);
    stop = true;
    one.wait(ledger), two.wait(ledger);
    for (const Ledger& own : ledgers) ledger.add(own);
    threads_started += 2;
  }

  void reset_shared() { memset(static_cast<void*>(shared), 0, sizeof *shared); }
  pid_t start_child() {
    if (reuse_pids_ && last_child_) {
      // The next number to be given is this + 1 (proc(5), ns_last_pid).
      if (FILE* last = fopen("/proc/sys/kernel/ns_last_pid", "w")) {
        fprintf(last, "%d", last_child_ - 1);
        fclose(last);
      }
    }
    pid_t child = fork();
    if (child < 0) {
      perror("fork");
      exit(1);
    }
    if (child > 0) {
      pids_reused += child == last_child_;
      last_child_ = child;
      ++processes_started;
    }
    return child;
  }
  void reap(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0) abort();
    children.add(shared->told);
  }

 public:
  // A child that lives long enough to tell.
  [[noreturn]] OWN_FRAME void report_burst() {
    Ledger own;
    short_lived_threads(2, own);
    shared->told = own;
    _exit(0);
  }

 private:
  const size_t threads_;
  const uint64_t turns_, hold_ns_;
  const bool reuse_pids_;
  pid_t last_child_ = 0;
};

static Shared* map_shared(int fd) {
  void* mapping = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapping == MAP_FAILED) {
    perror("mmap");
    exit(1);
  }
  return static_cast<Shared*>(mapping);
}

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "exec-child") {
    shared = map_shared(atoi(argv[2]));
    Exchange(2, 5, 300'000, false).report_burst();
  }
  Options options(argc, argv,
                  {{"threads", "8", "short-lived threads a round"},
                   {"turns", "3", "times that each takes the lock"},
                   {"hold-us", "300", "how long each time, asleep"},
                   {"reuse-pids", "no", "yes: give each child the last one's number (root)"}});
  shared_fd = memfd_create("churn", 0);  // not close-on-exec
  if (shared_fd < 0 || ftruncate(shared_fd, sizeof(Shared)) != 0) {
    perror("memfd");
    return 1;
  }
  shared = map_shared(shared_fd);

  Exchange exchange(options.count("threads"), options.count("turns"), options.us_in_ns("hold-us"),
                    options.choice("reuse-pids", {"no", "yes"}) == 1);
  Run run(options);
  run.start();
  while (!run.over()) exchange.round();
  run.stop();

  exchange.ledger.add(exchange.children);
  Report("churn")
      .run(run)
      .number("rounds", exchange.rounds)
      .number("threads_started", exchange.threads_started)
      .number("processes_started", exchange.processes_started)
      .number("execs", exchange.execs)
      .number("pids_reused", exchange.pids_reused)
      .number("died_holding", exchange.died_holding)
      .number("killed_wait_ns", exchange.killed_wait_ns)
      .number("killed_waits", exchange.killed_waits)
      .number("abandoned_wait_ns", exchange.abandoned_wait_ns)
      .number("abandoned_waits", exchange.abandoned_waits)
      .number("children_lock_wait_ns", exchange.children.lock_wait_ns)
      .number("children_waits", exchange.children.waits)
      .ledger(exchange.ledger)
      .print();
}
