// Control loops that update one axis under a priority-inheritance mutex.
//
// A right tracer sees: lock waits in FUTEX_LOCK_PI under AxisState::update (FUTEX_LOCK_PI2 with
// `--clock monotonic` on kernels from 5.14), sum lock_wait_ns, charged to the thread whose
// FUTEX_UNLOCK_PI handed the mutex over. The kernel names the owner in the lock word. Contended
// holds are exact: whoever got it in the kernel must release it there. The kernel may spin for a
// running owner instead of sleeping: slept_wait_ns is less than lock_wait_ns, which is what counts.
#include "workload.h"

using namespace workload;

struct Settings {
  uint64_t hold_ns, think_ns;
  bool hold_on_cpu;
  size_t clock;
};
enum Clock { kNoClock, kRealtime, kMonotonic };

class AxisState {
 public:
  AxisState(const Settings& settings, bool robust) : settings_(settings) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    if (robust) pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (int error = pthread_mutex_init(&mutex_, &attributes)) {
      fprintf(stderr, "priority-inheritance mutex: %s\n", strerror(error));
      exit(77);
    }
    pthread_mutexattr_destroy(&attributes);
  }
  OWN_FRAME void update(Ledger& ledger) {
    Acquired acquired = lock_axis(ledger);
    solve_kinematics();
    ++updates_;
    end_hold(ledger, acquired);
    unlock_axis();
    keep_frame();
  }
  const void* address() { return &mutex_; }
  uint64_t updates() const { return updates_; }

 private:
  OWN_FRAME Acquired lock_axis(Ledger& ledger) {
    return acquire(
        ledger, [this] { return pthread_mutex_trylock(&mutex_) == 0; },
        [this] {
          int error;
          if (settings_.clock == kNoClock) {
            error = pthread_mutex_lock(&mutex_);
          } else {
            clockid_t clock = settings_.clock == kRealtime ? CLOCK_REALTIME : CLOCK_MONOTONIC;
            timespec deadline;
            clock_gettime(clock, &deadline);
            deadline.tv_sec += 3600;
            error = pthread_mutex_clocklock(&mutex_, clock, &deadline);
          }
          if (error) {
            fprintf(stderr, "lock: %s\n", strerror(error));
            exit(error == EINVAL ? 77 : 1);
          }
        },
        Contended::kIfBlocked);
  }
  OWN_FRAME void unlock_axis() {
    pthread_mutex_unlock(&mutex_);
    keep_frame();
  }
  OWN_FRAME void solve_kinematics() { spend_ns(settings_.hold_ns, settings_.hold_on_cpu); }

  const Settings& settings_;
  alignas(64) pthread_mutex_t mutex_;
  alignas(64) uint64_t updates_ = 0;
};

class MotionController {
 public:
  MotionController(AxisState& axis, const Settings& settings, const Run& run, Ledger& ledger)
      : axis_(axis), settings_(settings), run_(run), ledger_(ledger) {}
  OWN_FRAME void run() {
    while (!run_.over()) tick();
  }

 private:
  OWN_FRAME void tick() {
    sleep_ns(settings_.think_ns);
    axis_.update(ledger_);
    keep_frame();
  }
  AxisState& axis_;
  const Settings& settings_;
  const Run& run_;
  Ledger& ledger_;
};

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"threads", "4", "control loops"},
                   {"hold-us", "500", "time in the critical section"},
                   {"think-us", "300", "time between two updates, asleep"},
                   {"holder", "cpu", "what the holder does: cpu or sleep"},
                   {"kind", "pi", "pi or pi-robust"},
                   {"clock", "none", "lock with a far deadline: none, realtime or monotonic"}});
  Settings settings{options.us_in_ns("hold-us"), options.us_in_ns("think-us"),
                    options.choice("holder", {"sleep", "cpu"}) == 1,
                    options.choice("clock", {"none", "realtime", "monotonic"})};
  AxisState axis(settings, options.choice("kind", {"pi", "pi-robust"}) == 1);

  Run run(options);
  Crew crew;
  Ledger main_ledger;
  std::vector<Ledger> ledgers(options.count("threads"));
  for (Ledger& ledger : ledgers)
    crew.add([&] { MotionController(axis, settings, run, ledger).run(); });
  crew.run(run, main_ledger);

  Ledger total = sum(ledgers, main_ledger);
  if (axis.updates() != total.acquisitions) abort();  // the mutex did not exclude
  Report("timed_pi_mutex")
      .run(run)
      .text("kind", options.text("kind"))
      .number("threads", uint64_t(ledgers.size()))
      .address("lock_address", axis.address())
      .stack("waiter_stack", {"AxisState::lock_axis", "AxisState::update",
                              "MotionController::tick", "MotionController::run"})
      .stack("holder_stack", {"AxisState::unlock_axis", "AxisState::update",
                              "MotionController::tick", "MotionController::run"})
      .ledger(total)
      .print();
}
