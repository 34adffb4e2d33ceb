// One tiny lock, every CPU, the highest rate: what a tracer must survive without losing its books.
//
// Every thread bumps one counter under one lock, again and again; the holder keeps it for --hold-ns
// (0: as short as can be). The lock counts its own calls, so the tracer's counters can be compared
// exactly: futex_waits = calls of FUTEX_WAIT, futex_mismatched of them returned EAGAIN,
// futex_wakes = calls of FUTEX_WAKE, futex_woke = threads woken (raw kinds).
//
//   raw      three-state lock: the kernel is called when contended
//   eager    every release calls FUTEX_WAKE, every failed try sleeps at once: the most calls
//   pthread  pthread_mutex: no call counts
//   calls    no lock: each turn one FUTEX_WAIT with the wrong value and one FUTEX_WAKE of nobody, as
//            fast as the kernel answers: nothing to account for, and nothing may be invented
//   remap    no lock either: each turn maps and unmaps memory, and wakes nobody on the next of many
//            pages, through FUTEX_WAKE without FUTEX_PRIVATE_FLAG: what backs the page has to be
//            found while the address space changes
//
// lock_wait_ns is exact by the program's clock, but the waits are as short as the tracer's own cost:
// compare blame with waiting (equal to the last byte), the counts of calls, and that nothing is
// lost uncounted; not the times with the program's, unless --hold-ns is 200000 or more.
#include <sched.h>
#include <sys/mman.h>

#include "raw_futex.h"

using namespace workload;

enum Kind { kRaw, kEager, kPthread, kCalls, kRemap };

class StatsRegistry {
 public:
  StatsRegistry(size_t kind, uint64_t hold_ns) : kind_(kind), hold_ns_(hold_ns) {}

  OWN_FRAME void bump(Ledger& ledger, FutexCalls& calls) {
    if (kind_ == kCalls) {
      calls.waited(futex_wait(lock_.word(), 1));
      calls.woken(futex_wake(lock_.word(), 1));
      return;
    }
    Acquired acquired = lock_stats(ledger, calls);
    ++bumps_;
    if (hold_ns_) burn_ns(hold_ns_);
    end_hold(ledger, acquired);
    unlock_stats(calls);
    keep_frame();
  }
  uint64_t bumps() const { return bumps_; }
  const void* address() { return kind_ == kPthread ? (const void*)&mutex_ : &lock_.word(); }

 private:
  OWN_FRAME Acquired lock_stats(Ledger& ledger, FutexCalls& calls) {
    return acquire(
        ledger,
        [this] {
          return kind_ == kPthread ? !pthread_mutex_trylock(&mutex_) : lock_.try_lock();
        },
        [&] {
          if (kind_ == kPthread) {
            pthread_mutex_lock(&mutex_);
            return;
          }
          lock_.lock([&](Word& word, uint32_t value) { calls.waited(futex_wait(word, value)); });
        });
  }
  OWN_FRAME void unlock_stats(FutexCalls& calls) {
    if (kind_ == kPthread)
      pthread_mutex_unlock(&mutex_);
    else if (lock_.release() || kind_ == kEager)
      calls.woken(futex_wake(lock_.word(), 1));
    keep_frame();
  }

  const size_t kind_;
  const uint64_t hold_ns_;
  RawLock lock_;
  alignas(64) pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  alignas(64) uint64_t bumps_ = 0;
};

OWN_FRAME void serve_forever(StatsRegistry& stats, const Run& run, uint64_t limit, Ledger& ledger,
                             FutexCalls& calls) {
  for (uint64_t turn = 0; !run.over() && (!limit || turn < limit); ++turn)
    stats.bump(ledger, calls);
}

static void* map_pages(size_t pages) {
  return ::mmap(nullptr, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void remap_forever(const Run& run, FutexCalls& calls) {
  constexpr size_t kPages = 1024, kPassingPages = 16;
  char* pages = static_cast<char*>(map_pages(kPages));
  for (size_t turn = 0; !run.over(); ++turn) {
    ::munmap(map_pages(kPassingPages), kPassingPages << 12);
    calls.woken(futex_wake_shared(reinterpret_cast<Word&>(pages[turn % kPages << 12]), 1));
  }
}

static void pin_to(size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"threads", "8", "threads"},
                   {"hold-ns", "1000", "time with the lock, on the CPU"},
                   {"turns", "0", "turns for each thread, 0 for as many as time allows"},
                   {"kind", "raw", "raw, eager, pthread, calls or remap"},
                   {"pin", "yes", "yes: thread i stays on CPU i % all"}});
  size_t threads = options.count("threads");
  bool pin = options.choice("pin", {"no", "yes"}) == 1;
  size_t cpus = size_t(sysconf(_SC_NPROCESSORS_ONLN));
  size_t kind = options.choice("kind", {"raw", "eager", "pthread", "calls", "remap"});

  Run run(options);
  Crew crew;
  Ledger main_ledger;
  StatsRegistry stats(kind, options.count("hold-ns"));
  std::vector<Ledger> ledgers(threads);
  std::vector<FutexCalls> calls(threads);
  for (size_t i = 0; i < threads; ++i) {
    crew.add([&, i] {
      if (pin) pin_to(i % cpus);
      if (kind == kRemap)
        remap_forever(run, calls[i]);
      else
        serve_forever(stats, run, options.count("turns"), ledgers[i], calls[i]);
    });
  }
  crew.run(run, main_ledger, options.count("turns") == 0);

  Ledger total = sum(ledgers, main_ledger);
  if (kind < kCalls && stats.bumps() != total.acquisitions) abort();  // the lock did not exclude
  FutexCalls all_calls;
  for (const FutexCalls& each : calls) all_calls.add(each);
  Report report("hammer");
  report.run(run)
      .text("kind", options.text("kind"))
      .number("threads", uint64_t(threads))
      .number("cpus", uint64_t(cpus))
      .address("lock_address", stats.address())
      .stack("waiter_stack", {"StatsRegistry::lock_stats", "StatsRegistry::bump", "serve_forever"})
      .stack("holder_stack",
             {"StatsRegistry::unlock_stats", "StatsRegistry::bump", "serve_forever"});
  if (kind != kPthread) {
    all_calls.report(report);
    report.number("futex_calls_per_s", double(all_calls.waits + all_calls.wakes) / run.elapsed_s());
  }
  report.ledger(total).print();
}
