// A semaphore as a lock (a pool of connections) and as a queue (a doorbell for idle workers).
//
//   lock   `--permits` tokens; the thread that waited also posts: lock_wait_ns under
//          ConnectionPool::checkout, charged to ConnectionPool::give_back. A post goes through the
//          kernel only while somebody waits: the holds that a tracer of futexes can know end in
//          kernel_holds / kernel_hold_ns (slept for, and somebody waited at the post).
//   queue  the producer posts, workers wait: the same calls, but it is idle_wait_ns, under
//          Doorbell::answer, ended by Doorbell::ring. Waiter and poster are never the same thread.
#include <semaphore.h>

#include "workload.h"

using namespace workload;

struct Settings {
  uint64_t hold_ns, think_ns;
  bool hold_on_cpu;
};

class ConnectionPool {
 public:
  ConnectionPool(const Settings& settings, unsigned permits) : settings_(settings) {
    sem_init(&free_, 0, permits);
  }
  OWN_FRAME void query(Ledger& ledger, Ledger& kernel_holds) {
    Acquired acquired = checkout(ledger);
    run_statement();
    end_hold(ledger, acquired);
    if (waiters()) end_hold(kernel_holds, acquired);
    give_back();
    keep_frame();
  }
  const void* address() { return &free_; }

 private:
  OWN_FRAME Acquired checkout(Ledger& ledger) {
    return acquire(
        ledger, [this] { return sem_trywait(&free_) == 0; },
        [this] {
          while (sem_wait(&free_) != 0) {
          }
        });
  }
  OWN_FRAME void give_back() {
    sem_post(&free_);
    keep_frame();
  }
  OWN_FRAME void run_statement() { spend_ns(settings_.hold_ns, settings_.hold_on_cpu); }
  // glibc's 64-bit sem_t: the value below, the number of waiters in the upper half
  // (sysdeps/nptl/internaltypes.h, struct new_sem).
  uint64_t waiters() const {
    return __atomic_load_n(reinterpret_cast<const uint64_t*>(&free_), __ATOMIC_RELAXED) >> 32;
  }

  const Settings& settings_;
  alignas(64) sem_t free_;
};

OWN_FRAME void serve_queries(ConnectionPool& pool, const Settings& settings, const Run& run,
                             Ledger& ledger, Ledger& kernel_holds) {
  while (!run.over()) {
    sleep_ns(settings.think_ns);
    pool.query(ledger, kernel_holds);
  }
}

class Doorbell {
 public:
  Doorbell() { sem_init(&visitors_, 0, 0); }
  OWN_FRAME void ring() {
    sem_post(&visitors_);
    keep_frame();
  }
  OWN_FRAME void answer(Ledger& ledger) {
    if (sem_trywait(&visitors_) == 0) return;
    idle(ledger, [this] {
      while (sem_wait(&visitors_) != 0) {
      }
    });
  }
  const void* address() { return &visitors_; }

 private:
  alignas(64) sem_t visitors_;
};

OWN_FRAME void answer_visitors(Doorbell& door, const std::atomic<bool>& closed, Ledger& ledger) {
  while (!closed.load(std::memory_order_acquire)) {
    door.answer(ledger);
    burn_ns(20'000);
  }
}
OWN_FRAME void bring_visitors(Doorbell& door, const Settings& settings, const Run& run) {
  while (!run.over()) {
    sleep_ns(settings.think_ns);
    door.ring();
  }
}

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"mode", "lock", "lock or queue"},
                   {"threads", "4", "threads that wait"},
                   {"permits", "1", "lock: tokens in the semaphore"},
                   {"hold-us", "500", "lock: time with a token"},
                   {"think-us", "300", "time between two requests or two posts, asleep"},
                   {"holder", "cpu", "what a holder does: cpu or sleep"}});
  Settings settings{options.us_in_ns("hold-us"), options.us_in_ns("think-us"),
                    options.choice("holder", {"sleep", "cpu"}) == 1};
  bool lock_mode = options.choice("mode", {"queue", "lock"}) == 1;
  size_t threads = options.count("threads");

  Run run(options);
  Crew crew;
  Ledger main_ledger;
  std::vector<Ledger> ledgers(threads), kernel_holds(threads);
  ConnectionPool pool(settings, unsigned(options.count("permits")));
  Doorbell door;
  std::atomic<bool> closed{false};
  for (size_t i = 0; i < threads; ++i) {
    if (lock_mode)
      crew.add([&, i] { serve_queries(pool, settings, run, ledgers[i], kernel_holds[i]); });
    else
      crew.add([&, i] { answer_visitors(door, closed, ledgers[i]); });
  }
  if (!lock_mode) {
    crew.add([&] {
      bring_visitors(door, settings, run);
      closed.store(true, std::memory_order_release);
      for (size_t i = 0; i < threads; ++i) door.ring();
    });
  }
  crew.run(run, main_ledger);

  Report report("timed_semaphore");
  report.run(run)
      .text("mode", options.text("mode"))
      .number("threads", threads)
      .address("lock_address", lock_mode ? pool.address() : door.address());
  if (lock_mode)
    report
        .stack("waiter_stack",
               {"ConnectionPool::checkout", "ConnectionPool::query", "serve_queries"})
        .stack("holder_stack",
               {"ConnectionPool::give_back", "ConnectionPool::query", "serve_queries"});
  else
    report.stack("waiter_stack", {"Doorbell::answer", "answer_visitors"})
        .stack("waker_stack", {"Doorbell::ring", "bring_visitors"});
  Ledger kernel = sum(kernel_holds, {});
  report.number("kernel_hold_ns", kernel.hold_ns)
      .number("kernel_holds", kernel.holds)
      .ledger(sum(ledgers, main_ledger))
      .print();
}
