// A batch runner: starts short-lived workers, waits for each to end, and begins again.
//
// A right tracer sees idle waiting only, under BatchRunner::collect, on the word that the kernel
// clears and wakes when a thread exits: there is no waking futex call, so the waker is the exiting
// thread or unknown, never another. idle_wait_ns = join_wait_ns. The workers wait for nothing.
#include <thread>

#include "workload.h"

using namespace workload;

class BatchRunner {
 public:
  BatchRunner(size_t workers, uint64_t work_ns, bool work_on_cpu, bool std_kind)
      : workers_(workers), work_ns_(work_ns), work_on_cpu_(work_on_cpu), std_kind_(std_kind) {}

  OWN_FRAME void run_batch(Ledger& ledger) {
    if (std_kind_) {
      std::vector<std::thread> threads;
      for (size_t i = 0; i < workers_; ++i) threads.emplace_back([this] { resize_image(); });
      for (std::thread& thread : threads) collect(thread, ledger);
    } else {
      std::vector<pthread_t> threads(workers_);
      for (pthread_t& thread : threads) pthread_create(&thread, nullptr, enter, this);
      for (pthread_t& thread : threads) collect(thread, ledger);
    }
    ++batches_;
  }
  uint64_t batches() const { return batches_; }

 private:
  OWN_FRAME void resize_image() { spend_ns(work_ns_, work_on_cpu_); }
  static void* enter(void* self) {
    static_cast<BatchRunner*>(self)->resize_image();
    return nullptr;
  }
  OWN_FRAME void collect(std::thread& thread, Ledger& ledger) {
    ledger.join_wait_ns += idle(ledger, [&] { thread.join(); });
  }
  OWN_FRAME void collect(pthread_t thread, Ledger& ledger) {
    join(ledger, thread);
    keep_frame();
  }

  const size_t workers_;
  const uint64_t work_ns_;
  const bool work_on_cpu_, std_kind_;
  uint64_t batches_ = 0;
};

OWN_FRAME void run_batches(BatchRunner& runner, const Run& run, Ledger& ledger) {
  while (!run.over()) runner.run_batch(ledger);
}

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"threads", "4", "workers a batch"},
                   {"work-us", "2000", "a worker's life"},
                   {"worker", "sleep", "how that time is spent: cpu or sleep"},
                   {"kind", "pthread", "pthread or std"}});
  Run run(options);
  Ledger ledger;
  BatchRunner runner(options.count("threads"), options.us_in_ns("work-us"),
                     options.choice("worker", {"sleep", "cpu"}) == 1,
                     options.choice("kind", {"pthread", "std"}) == 1);
  run.start();
  run_batches(runner, run, ledger);
  run.stop();
  Report("timed_join")
      .run(run)
      .text("kind", options.text("kind"))
      .number("threads", options.count("threads"))
      .number("batches", runner.batches())
      .stack("waiter_stack", {"BatchRunner::collect", "BatchRunner::run_batch", "run_batches"})
      .ledger(ledger)
      .print();
}
