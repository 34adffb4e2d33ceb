// One lock, taken by three functions, more often than a tracer can afford to look at the stack each
// time: what it says of who waits how long, and who makes the others wait, is then an estimate.
//
// Each turn of a thread takes one of the functions: post (10 of 16 turns, holds 1 time), settle (5
// of 16, holds 4 times) or audit (1 of 16, holds 16 times as long as --hold-ns says). In between it
// works for --think-ns. The lock is a plain three-state one, without spinning, so that every
// contended turn comes through the kernel.
//
// lock_wait_ns by the program's clock includes the tracer's cost, which is as long as such waits.
#include "raw_futex.h"

using namespace workload;

class Account {
 public:
  explicit Account(uint64_t hold_ns) : hold_ns_(hold_ns) {}

  OWN_FRAME void post(Ledger& ledger) { change(ledger, hold_ns_); }
  OWN_FRAME void settle(Ledger& ledger) { change(ledger, 4 * hold_ns_); }
  OWN_FRAME void audit(Ledger& ledger) { change(ledger, 16 * hold_ns_); }
  uint64_t changes() const { return changes_; }
  const void* address() { return &lock_.word(); }

 private:
  // Inline: the stacks end at the three above.
  [[gnu::always_inline]] void change(Ledger& ledger, uint64_t hold_ns) {
    Acquired acquired = acquire(
        ledger, [this] { return lock_.try_lock(); },
        [this] { lock_.lock([](Word& word, uint32_t value) { futex_wait(word, value); }); });
    ++changes_;
    burn_ns(hold_ns);
    end_hold(ledger, acquired);
    if (lock_.release()) futex_wake(lock_.word(), 1);
    keep_frame();
  }

  const uint64_t hold_ns_;
  RawLock lock_;
  alignas(64) uint64_t changes_ = 0;
};

OWN_FRAME void serve(Account& account, const Run& run, uint64_t think_ns, uint64_t seed,
                     Ledger& ledger) {
  while (!run.over()) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    const uint64_t dice = seed >> 60;
    if (dice < 10)
      account.post(ledger);
    else if (dice < 15)
      account.settle(ledger);
    else
      account.audit(ledger);
    burn_ns(think_ns);
  }
}

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"threads", "4", "threads"},
                   {"hold-ns", "2000", "shortest time with the lock, on the CPU"},
                   {"think-ns", "1000", "time between two turns, on the CPU"}});
  size_t threads = options.count("threads");
  Run run(options);
  Crew crew;
  Ledger main_ledger;
  Account account(options.count("hold-ns"));
  std::vector<Ledger> ledgers(threads);
  for (size_t i = 0; i < threads; ++i) {
    crew.add([&, i] { serve(account, run, options.count("think-ns"), i + 1, ledgers[i]); });
  }
  crew.run(run, main_ledger);

  Ledger total = sum(ledgers, main_ledger);
  if (account.changes() != total.acquisitions) abort();  // the lock did not exclude
  Report report("timed_sites");
  report.run(run)
      .number("threads", uint64_t(threads))
      .address("lock_address", account.address())
      .ledger(total)
      .print();
}
