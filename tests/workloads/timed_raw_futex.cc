// A table of leases behind a hand-made futex lock whose waits time out, are interrupted by signals
// and must be tried again.
//
// A right tracer sees: one lock, waits under LeaseTable::claim. lock_wait_ns is the whole time from
// the first try to having the lock, across every timeout (--timeout-us) and every signal
// (--signal-us): a return with ETIMEDOUT or EINTR ends a sleep, not the wait, if the thread comes
// back to the same word. The futex_* fields say how many calls there were and how they ended.
// With `--give-up` a claimant that has timed out leaves without the lock: that time is
// abandoned_wait_ns (in lock_wait_ns too), and it is waiting on a lock all the same.
//
//   --signal-us N    a thread sends SIGUSR1 to a claimant every N us; with `--restart yes` the
//                    kernel restarts the call by itself: the program never sees EINTR, and a tracer of
//                    system calls sees more of them than futex_calls
//   --call           wait (FUTEX_WAIT, relative time), bitset (FUTEX_WAIT_BITSET, absolute; each
//                    claimant its own bit, releases wake all bits) or futex2 (no timeouts)
//   --sleepers N     threads that use FUTEX_WAIT on a word nobody ever wakes, as a clock:
//                    idle_wait_ns, each of --nap-us
//   --misses N       for each claim, N waits whose expected value is wrong (EAGAIN) and N wakes of
//                    a word that nobody waits for: calls, but no waiting
#include <signal.h>

#include "raw_futex.h"

using namespace workload;

enum Call { kWait, kBitset, kFutex2 };
struct Settings {
  uint64_t hold_ns, think_ns, timeout_ns, misses;
  size_t call;
  bool hold_on_cpu, give_up, realtime;
};

class LeaseTable {
 public:
  explicit LeaseTable(const Settings& settings) : settings_(settings) {}

  // False if it gave up.
  OWN_FRAME bool claim(Ledger& ledger, FutexCalls& calls, size_t index) {
    bool got = true;
    Acquired acquired = acquire(
        ledger, [this] { return lock_.try_lock(); },
        [&] { got = wait_for_lease(calls, 1u << (index % 31)); });
    if (!got) return false;
    grant_lease();
    end_hold(ledger, acquired);
    hand_back(calls);
    return true;
  }
  OWN_FRAME void miss(FutexCalls& calls) {
    for (uint64_t i = 0; i < settings_.misses; ++i) {
      calls.waited(futex_wait(other_, 1));
      calls.woken(futex_wake(other_, 1));
    }
  }
  const void* address() { return &lock_.word(); }

 private:
  OWN_FRAME bool wait_for_lease(FutexCalls& calls, uint32_t bit) {
    return lock_.lock_while([&](Word& word, uint32_t value) {
      return calls.waited(sleep_on(word, value, bit)) != -ETIMEDOUT || !settings_.give_up;
    });
  }
  long sleep_on(Word& word, uint32_t value, uint32_t bit) {
    if (settings_.call == kFutex2) return futex2_wait(word, value);
    timespec time;
    const timespec* limit = settings_.timeout_ns ? &time : nullptr;
    if (settings_.call == kWait) {
      time = to_timespec(settings_.timeout_ns);
      return futex_wait(word, value, limit);
    }
    clock_gettime(settings_.realtime ? CLOCK_REALTIME : CLOCK_MONOTONIC, &time);
    time = to_timespec(uint64_t(time.tv_sec) * 1'000'000'000 + uint64_t(time.tv_nsec) +
                       settings_.timeout_ns);
    return futex_wait_bitset(word, value, limit, settings_.realtime, bit);
  }
  OWN_FRAME void hand_back(FutexCalls& calls) {
    if (!lock_.release()) return;
    switch (settings_.call) {
      case kWait: calls.woken(futex_wake(lock_.word(), 1)); break;
      case kBitset: calls.woken(futex_wake_bitset(lock_.word(), 1, UINT32_MAX)); break;
      default: calls.woken(futex2_wake(lock_.word(), 1));
    }
  }
  OWN_FRAME void grant_lease() { spend_ns(settings_.hold_ns, settings_.hold_on_cpu); }

  const Settings& settings_;
  RawLock lock_;
  alignas(64) Word other_{0};
};

OWN_FRAME void nap(Word& word, uint64_t nap_ns, const Run& run, Ledger& ledger,
                   FutexCalls& calls) {
  timespec time = to_timespec(nap_ns);
  while (!run.over()) idle(ledger, [&] { calls.waited(futex_wait(word, 0, &time)); });
}

static void on_signal(int) {}

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"threads", "4", "claimants"},
                   {"hold-us", "1000", "time with the lock"},
                   {"think-us", "1000", "time between two claims, asleep"},
                   {"holder", "cpu", "what the holder does: cpu or sleep"},
                   {"call", "wait", "wait, bitset or futex2"},
                   {"clock", "monotonic", "bitset: monotonic or realtime"},
                   {"timeout-us", "0", "limit of one sleep, 0 none"},
                   {"give-up", "no", "yes: leave after a timeout"},
                   {"signal-us", "0", "a signal to a claimant this often, 0 none"},
                   {"restart", "no", "yes: SA_RESTART"},
                   {"misses", "0", "calls with nothing to do, before each claim"},
                   {"sleepers", "0", "threads that sleep on a futex"},
                   {"nap-us", "5000", "how long each time"}});
  Settings settings{options.us_in_ns("hold-us"),
                    options.us_in_ns("think-us"),
                    options.us_in_ns("timeout-us"),
                    options.count("misses"),
                    options.choice("call", {"wait", "bitset", "futex2"}),
                    options.choice("holder", {"sleep", "cpu"}) == 1,
                    options.choice("give-up", {"no", "yes"}) == 1,
                    options.choice("clock", {"monotonic", "realtime"}) == 1};
  size_t threads = options.count("threads"), sleepers = options.count("sleepers");
  uint64_t signal_ns = options.us_in_ns("signal-us"), nap_ns = options.us_in_ns("nap-us");
  Word probe{1};
  if (settings.call == kFutex2 && futex2_wait(probe, 0) == -ENOSYS) {
    fprintf(stderr, "futex_wait (futex2): %s\n", strerror(ENOSYS));
    return 77;
  }
  struct sigaction action = {};
  action.sa_handler = on_signal;
  if (options.choice("restart", {"no", "yes"}) == 1) action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);

  Run run(options);
  Crew crew;
  Ledger main_ledger;
  LeaseTable table(settings);
  std::vector<Ledger> ledgers(threads + sleepers), abandoned(threads);
  std::vector<FutexCalls> calls(threads + sleepers);
  std::vector<std::atomic<pid_t>> tids(threads);
  std::atomic<size_t> claiming{threads};
  std::atomic<uint64_t> signals{0};
  Word never{0};
  for (size_t i = 0; i < threads; ++i) {
    crew.add([&, i] {
      tids[i] = gettid();
      while (!run.over()) {
        sleep_ns(settings.think_ns);
        table.miss(calls[i]);
        uint64_t before = ledgers[i].lock_wait_ns;
        if (table.claim(ledgers[i], calls[i], i)) continue;
        --ledgers[i].acquisitions;
        abandoned[i].lock_wait_ns += ledgers[i].lock_wait_ns - before;
        ++abandoned[i].waits;
      }
      // A thread that has left must not be signalled: its number may be another's.
      tids[i] = 0;
      claiming.fetch_sub(1);
      while (signal_ns && claiming.load()) sleep_ns(1'000'000);
    });
  }
  for (size_t i = threads; i < threads + sleepers; ++i)
    crew.add([&, i] { nap(never, nap_ns, run, ledgers[i], calls[i]); });
  if (signal_ns && threads) {
    crew.add([&] {
      for (size_t i = 0; claiming.load(); ++i) {
        sleep_ns(signal_ns);
        pid_t tid = tids[i % threads];
        if (tid && syscall(SYS_tgkill, getpid(), tid, SIGUSR1) == 0) ++signals;
      }
    });
  }
  crew.run(run, main_ledger);

  FutexCalls all_calls;
  for (const FutexCalls& each : calls) all_calls.add(each);
  Ledger gave_up = sum(abandoned, {});
  Report report("timed_raw_futex");
  report.run(run)
      .text("call", options.text("call"))
      .number("threads", uint64_t(threads))
      .address("lock_address", table.address())
      .stack("waiter_stack", {"LeaseTable::wait_for_lease", "LeaseTable::claim"})
      .stack("holder_stack", {"LeaseTable::hand_back", "LeaseTable::claim"})
      .number("abandoned_wait_ns", gave_up.lock_wait_ns)
      .number("abandoned_waits", gave_up.waits)
      .number("signals", signals.load());
  all_calls.report(report);
  report.ledger(sum(ledgers, main_ledger)).print();
}
