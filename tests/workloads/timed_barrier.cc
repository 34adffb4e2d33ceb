// A simulation in lockstep: each thread computes its part and waits for the others at a barrier.
//
// A right tracer sees idle waiting only: idle_wait_ns under Simulation::wait_for_neighbours, ended
// by the last thread to arrive. Thread i works (i + 1) x --work-us, so that the last is always the
// same one and hardly waits.
//
// Kinds: pthread (pthread_barrier), std (std::barrier), latch (a std::latch a step), atomic
// (std::atomic::wait and notify_all, C++20's futex).
#include <barrier>
#include <latch>
#include <memory>

#include "workload.h"

using namespace workload;

enum Kind { kPthread, kStd, kLatch, kAtomic };

class Simulation {
 public:
  Simulation(size_t threads, uint64_t work_ns, bool work_on_cpu, size_t kind, const Run& run)
      : threads_(threads),
        work_ns_(work_ns),
        work_on_cpu_(work_on_cpu),
        kind_(kind),
        run_(run),
        std_barrier_(long(threads)),
        atomic_missing_(threads) {
    pthread_barrier_init(&barrier_, nullptr, unsigned(threads));
    for (auto& latch : latches_) latch = std::make_unique<std::latch>(long(threads));
  }

  OWN_FRAME void run_cell(size_t index, Ledger& ledger) {
    for (uint64_t step = 0;; ++step) {
      compute_cell(index);
      if (index == 0 && run_.over()) last_step_.store(step, std::memory_order_relaxed);
      wait_for_neighbours(step, ledger);
      if (step >= last_step_.load(std::memory_order_relaxed)) break;
    }
  }
  uint64_t steps() const { return last_step_ + 1; }
  const void* address() { return &barrier_; }

 private:
  OWN_FRAME void compute_cell(size_t index) { spend_ns((index + 1) * work_ns_, work_on_cpu_); }
  OWN_FRAME void wait_for_neighbours(uint64_t step, Ledger& ledger) {
    idle(ledger, [&] {
      switch (kind_) {
        case kPthread: pthread_barrier_wait(&barrier_); break;
        case kStd: std_barrier_.arrive_and_wait(); break;
        case kLatch: wait_at_latch(step); break;
        default: wait_at_atomic(step);
      }
    });
  }
  // One of three latches; the last to arrive renews the one that nobody can be at any more.
  void wait_at_latch(uint64_t step) {
    size_t before = (step + 2) % 3;
    if (latch_arrived_[step % 3].fetch_add(1) + 1 == threads_) {
      latches_[before] = std::make_unique<std::latch>(long(threads_));
      latch_arrived_[before] = 0;
    }
    latches_[step % 3]->arrive_and_wait();
  }
  void wait_at_atomic(uint64_t step) {
    if (atomic_missing_.fetch_sub(1) == 1) {
      atomic_missing_.store(threads_);
      atomic_step_.store(int(step + 1));
      atomic_step_.notify_all();
      return;
    }
    for (int now; (now = atomic_step_.load()) <= int(step);) atomic_step_.wait(now);
  }

  const size_t threads_;
  const uint64_t work_ns_;
  const bool work_on_cpu_;
  const size_t kind_;
  const Run& run_;
  std::atomic<uint64_t> last_step_{UINT64_MAX - 1};
  alignas(64) pthread_barrier_t barrier_;
  std::barrier<> std_barrier_;
  std::unique_ptr<std::latch> latches_[3];
  std::atomic<size_t> latch_arrived_[3] = {};
  std::atomic<size_t> atomic_missing_;
  std::atomic<int> atomic_step_{0};
};

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"threads", "4", "cells"},
                   {"work-us", "500", "thread i works (i + 1) times this a step"},
                   {"worker", "sleep", "how that time is spent: cpu or sleep"},
                   {"kind", "pthread", "pthread, std, latch or atomic"}});
  size_t threads = options.count("threads");
  Run run(options);
  Simulation simulation(threads, options.us_in_ns("work-us"),
                        options.choice("worker", {"sleep", "cpu"}) == 1,
                        options.choice("kind", {"pthread", "std", "latch", "atomic"}), run);
  Crew crew;
  Ledger main_ledger;
  std::vector<Ledger> ledgers(threads);
  for (size_t i = 0; i < threads; ++i) crew.add([&, i] { simulation.run_cell(i, ledgers[i]); });
  crew.run(run, main_ledger);

  Report("timed_barrier")
      .run(run)
      .text("kind", options.text("kind"))
      .number("threads", uint64_t(threads))
      .number("steps", simulation.steps())
      .address("barrier_address", simulation.address())
      .stack("waiter_stack", {"Simulation::wait_for_neighbours", "Simulation::run_cell"})
      .ledger(sum(ledgers, main_ledger))
      .print();
}
