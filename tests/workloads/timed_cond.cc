// Condition variables: two players that hand a ball to and fro, or a job queue with idle workers.
//
// A right tracer sees idle waiting, not lock waiting: idle_wait_ns under Rally::wait_for_ball or
// JobQueue::pop, ended by the partner's signal under Rally::hit or JobQueue::push, so that the pairs
// waiter <- waker are exact. The mutex is held for a few instructions: its waits are the small rest.
//
//   pingpong  two threads for each rally; with `--work-us 0` every hand-over goes through the kernel
//             as fast as it can: the worst case for a tracer's cost (`--rounds` bounds it by work
//             instead of time). Pinned to one CPU it needs `--policy batch`, or the wakee preempts
//             the waker, and finds the ball back before it has waited
//   queue     producers push every `--work-us`, consumers wait; `--timeout-us` makes consumers wake
//             up for nothing now and then
// `--signal held` signals with the mutex held, so that the wakee finds it taken and waits again. That
// second wait is a lock wait, but happens inside pthread_cond_wait, where the program's clock cannot
// tell: compare the sum of lock_wait_ns and idle_wait_ns.
#include <sched.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "workload.h"

using namespace workload;

struct Settings {
  uint64_t work_ns, timeout_ns, rounds;
  bool work_on_cpu, signal_held, std_kind, own_clock;
};

// One mutex and one condition of either kind, and the clock around each wait.
class Monitor {
 public:
  explicit Monitor(const Settings& settings) : settings_(settings) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&condition_, &attributes);
    pthread_condattr_destroy(&attributes);
  }
  Acquired lock(Ledger& ledger) {
    if (!settings_.own_clock) {
      mutex_.lock();
      return {};
    }
    return acquire(
        ledger, [this] { return mutex_.try_lock(); }, [this] { mutex_.lock(); });
  }
  void unlock(Ledger& ledger, const Acquired& acquired) {
    if (settings_.own_clock) end_hold(ledger, acquired);
    mutex_.unlock();
  }
  // The mutex is held before and after: one hold ends and another begins.
  void wait(Ledger& ledger, Acquired& acquired) {
    if (!settings_.own_clock) {
      block();
      return;
    }
    end_hold(ledger, acquired);
    idle(ledger, [this] { block(); });
    acquired = {now_ns(), false};
  }
  void signal() {
    settings_.std_kind ? std_condition_.notify_one() : (void)pthread_cond_signal(&condition_);
  }
  void broadcast() {
    settings_.std_kind ? std_condition_.notify_all() : (void)pthread_cond_broadcast(&condition_);
  }
  const void* address() {
    return settings_.std_kind ? (void*)&std_condition_ : (void*)&condition_;
  }
  // A change of the guarded state that wakes one waiter, inside or after the critical section.
  template <typename Change>
  void change_and_signal(Ledger& ledger, Change&& change) {
    Acquired acquired = lock(ledger);
    change();
    if (settings_.signal_held) signal();
    unlock(ledger, acquired);
    if (!settings_.signal_held) signal();
  }

 private:
  void block() {
    if (settings_.std_kind) {
      std::unique_lock<std::mutex> held(mutex_, std::adopt_lock);
      std_condition_.wait(held);
      held.release();
    } else if (settings_.timeout_ns) {
      timespec deadline = to_timespec(now_ns() + settings_.timeout_ns);
      pthread_cond_timedwait(&condition_, mutex_.native_handle(), &deadline);
    } else {
      pthread_cond_wait(&condition_, mutex_.native_handle());
    }
  }

  const Settings& settings_;
  alignas(64) std::mutex mutex_;
  alignas(64) pthread_cond_t condition_;
  alignas(64) std::condition_variable std_condition_;
};

class Rally {
 public:
  Rally(const Settings& settings, const Run& run)
      : settings_(settings), run_(run), sides_{Monitor(settings), Monitor(settings)} {}

  OWN_FRAME void play(int side, Ledger& ledger) {
    while (!over_.load(std::memory_order_relaxed)) play_ball(side, ledger);
  }

  uint64_t handovers() const { return handovers_; }
  const void* address() { return sides_[0].address(); }

 private:
  OWN_FRAME void play_ball(int side, Ledger& ledger) {
    wait_for_ball(side, ledger);
    spend_ns(settings_.work_ns, settings_.work_on_cpu);
    bool enough = settings_.rounds ? handovers_ >= settings_.rounds : run_.over();
    if (enough) over_.store(true, std::memory_order_relaxed);
    hit(1 - side, ledger);
    keep_frame();
  }
  OWN_FRAME void wait_for_ball(int side, Ledger& ledger) {
    Acquired acquired = sides_[side].lock(ledger);
    while (!ball_[side] && !over_.load(std::memory_order_relaxed))
      sides_[side].wait(ledger, acquired);
    ball_[side] = false;
    sides_[side].unlock(ledger, acquired);
  }
  OWN_FRAME void hit(int to, Ledger& ledger) {
    sides_[to].change_and_signal(ledger, [&] { ball_[to] = true; });
    ++handovers_;
    keep_frame();
  }

  const Settings& settings_;
  const Run& run_;
  Monitor sides_[2];
  bool ball_[2] = {true, false};
  uint64_t handovers_ = 0;  // touched only by the side that has the ball
  std::atomic<bool> over_{false};
};

class JobQueue {
 public:
  explicit JobQueue(const Settings& settings) : monitor_(settings) {}

  OWN_FRAME void push(uint64_t job, Ledger& ledger) {
    monitor_.change_and_signal(ledger, [&] { jobs_.push_back(job); });
    keep_frame();
  }
  OWN_FRAME bool pop(Ledger& ledger) {
    Acquired acquired = monitor_.lock(ledger);
    while (jobs_.empty() && !closed_) monitor_.wait(ledger, acquired);
    bool got = !jobs_.empty();
    if (got) jobs_.pop_front(), ++popped_;
    monitor_.unlock(ledger, acquired);
    return got;
  }
  OWN_FRAME void close(Ledger& ledger) {
    Acquired acquired = monitor_.lock(ledger);
    closed_ = true;
    monitor_.unlock(ledger, acquired);
    monitor_.broadcast();
  }
  uint64_t popped() const { return popped_; }
  const void* address() { return monitor_.address(); }

 private:
  Monitor monitor_;
  std::deque<uint64_t> jobs_;
  uint64_t popped_ = 0;
  bool closed_ = false;
};

OWN_FRAME void consume_jobs(JobQueue& queue, Ledger& ledger) {
  while (queue.pop(ledger)) burn_ns(20'000);
}
OWN_FRAME void produce_jobs(JobQueue& queue, const Settings& settings, const Run& run,
                            Ledger& ledger) {
  for (uint64_t job = 0; !run.over(); ++job) {
    spend_ns(settings.work_ns, settings.work_on_cpu);
    queue.push(job, ledger);
  }
}

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"mode", "pingpong", "pingpong or queue"},
                   {"threads", "2", "pingpong: players, two a rally; queue: consumers"},
                   {"producers", "1", "queue: producers"},
                   {"work-us", "500", "time between having the ball and handing it on, or jobs"},
                   {"worker", "sleep", "how that time is spent: cpu or sleep"},
                   {"rounds", "0", "pingpong: hand-overs to make, 0 for as many as time allows"},
                   {"signal", "after", "signal after the unlock or with the mutex held"},
                   {"timeout-us", "0", "give up each wait after this long, 0 never (pthread)"},
                   {"own-clock", "on", "off: do not time each wait (to measure a tracer's cost)"},
                   {"policy", "normal", "batch: a wakee does not preempt its waker"},
                   {"kind", "pthread", "pthread or std"}});
  Settings settings{options.us_in_ns("work-us"),
                    options.us_in_ns("timeout-us"),
                    options.count("rounds"),
                    options.choice("worker", {"sleep", "cpu"}) == 1,
                    options.choice("signal", {"after", "held"}) == 1,
                    options.choice("kind", {"pthread", "std"}) == 1,
                    options.choice("own-clock", {"off", "on"}) == 1};
  bool pingpong = options.choice("mode", {"queue", "pingpong"}) == 1;
  size_t threads = options.count("threads"), producers = options.count("producers");

  if (options.choice("policy", {"normal", "batch"}) == 1) {
    sched_param none = {};
    sched_setscheduler(0, SCHED_BATCH, &none);
  }

  Run run(options);
  Crew crew;
  Ledger main_ledger;
  std::vector<Ledger> ledgers(threads + producers);
  std::deque<Rally> rallies;
  JobQueue queue(settings);
  std::atomic<size_t> producing{producers};
  if (pingpong) {
    for (size_t i = 0; i + 1 < threads; i += 2) {
      Rally& rally = rallies.emplace_back(settings, run);
      crew.add([&rally, &ledger = ledgers[i]] { rally.play(0, ledger); });
      crew.add([&rally, &ledger = ledgers[i + 1]] { rally.play(1, ledger); });
    }
  } else {
    for (size_t i = 0; i < threads; ++i) crew.add([&, i] { consume_jobs(queue, ledgers[i]); });
    for (size_t i = threads; i < threads + producers; ++i) {
      crew.add([&, i] {
        produce_jobs(queue, settings, run, ledgers[i]);
        if (producing.fetch_sub(1) == 1) queue.close(ledgers[i]);
      });
    }
  }
  crew.run(run, main_ledger, settings.rounds == 0);

  uint64_t handovers = queue.popped();
  for (const Rally& rally : rallies) handovers += rally.handovers();
  Report report("timed_cond");
  report.run(run)
      .text("mode", options.text("mode"))
      .text("kind", options.text("kind"))
      .number("threads", threads)
      .address("condition_address", pingpong ? rallies[0].address() : queue.address())
      .number("handovers", handovers)
      .number("handovers_per_s", double(handovers) / run.elapsed_s());
  if (pingpong)
    report.stack("waiter_stack", {"Rally::wait_for_ball", "Rally::play_ball", "Rally::play"})
        .stack("waker_stack", {"Rally::hit", "Rally::play_ball", "Rally::play"});
  else
    report.stack("waiter_stack", {"JobQueue::pop", "consume_jobs"})
        .stack("waker_stack", {"JobQueue::push", "produce_jobs"});
  report.ledger(sum(ledgers, main_ledger)).print();
}
