// Request workers that append to a session store behind one mutex (or several).
//
// A right tracer sees: a mutex wait under SessionStore::append whose sum is lock_wait_ns, blamed to
// the last byte on SessionStore::append's unlock; contended holds of hold_ns / holds each; nothing
// on the uncontended calls. With `--holder sleep` the holder is blocked, with `cpu` it is running or
// runnable. One join wait at the end is the only idle time.
//
// Kinds: normal, recursive, errorcheck, adaptive, robust, timed (pthread_mutex_timedlock with a far
// deadline), clock (pthread_mutex_clocklock, monotonic), std (std::mutex). The adaptive kind spins
// before it sleeps: lock_wait_ns contains that, and what the kernel sees is less.
#include <mutex>

#include "workload.h"

using namespace workload;

struct Settings {
  uint64_t hold_ns, think_ns;
  bool hold_on_cpu, think_on_cpu;
  size_t kind;
};
enum Kind { kNormal, kRecursive, kErrorcheck, kAdaptive, kRobust, kTimed, kClock, kStd };
const std::vector<const char*> kKinds = {"normal", "recursive", "errorcheck", "adaptive",
                                         "robust", "timed",     "clock",      "std"};

class SessionStore {
 public:
  explicit SessionStore(const Settings& settings) : settings_(settings) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    switch (settings.kind) {
      case kRecursive: pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE); break;
      case kErrorcheck: pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK); break;
      case kAdaptive: pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP); break;
      case kRobust: pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST); break;
      default: break;
    }
    pthread_mutex_init(mutex(), &attributes);
    pthread_mutexattr_destroy(&attributes);
  }

  OWN_FRAME void append(Ledger& ledger) {
    Acquired acquired = lock_sessions(ledger);
    settings_.hold_on_cpu ? encode_record() : flush_to_disk();
    ++appended_;
    end_hold(ledger, acquired);
    unlock_sessions();
    keep_frame();
  }

  pthread_mutex_t* mutex() { return mutex_.native_handle(); }
  uint64_t appended() const { return appended_; }

 private:
  OWN_FRAME Acquired lock_sessions(Ledger& ledger) {
    return acquire(
        ledger, [this] { return pthread_mutex_trylock(mutex()) == 0; },
        [this] {
          int error = 0;
          switch (settings_.kind) {
            case kStd: mutex_.lock(); break;
            case kTimed: {
              timespec deadline;
              clock_gettime(CLOCK_REALTIME, &deadline);
              deadline.tv_sec += 3600;
              error = pthread_mutex_timedlock(mutex(), &deadline);
              break;
            }
            case kClock: {
              timespec deadline = to_timespec(now_ns() + 3'600'000'000'000);
              error = pthread_mutex_clocklock(mutex(), CLOCK_MONOTONIC, &deadline);
              break;
            }
            default: error = pthread_mutex_lock(mutex());
          }
          if (error) abort();
        });
  }
  OWN_FRAME void unlock_sessions() {
    settings_.kind == kStd ? mutex_.unlock() : (void)pthread_mutex_unlock(mutex());
    keep_frame();
  }
  OWN_FRAME void encode_record() { burn_ns(settings_.hold_ns); }
  OWN_FRAME void flush_to_disk() { sleep_ns(settings_.hold_ns); }

  const Settings& settings_;
  alignas(64) std::mutex mutex_;
  alignas(64) uint64_t appended_ = 0;
};

class RequestWorker {
 public:
  RequestWorker(SessionStore& store, const Settings& settings, const Run& run, Ledger& ledger)
      : store_(store), settings_(settings), run_(run), ledger_(ledger) {}

  OWN_FRAME void run() {
    while (!run_.over()) serve();
  }

 private:
  OWN_FRAME void serve() {
    spend_ns(settings_.think_ns, settings_.think_on_cpu);
    store_.append(ledger_);
    keep_frame();
  }

  SessionStore& store_;
  const Settings& settings_;
  const Run& run_;
  Ledger& ledger_;
};

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"threads", "4", "request workers"},
                   {"locks", "1", "session stores, each with its own mutex; worker i uses i % N"},
                   {"hold-us", "500", "time in the critical section"},
                   {"think-us", "300", "time between two requests"},
                   {"holder", "cpu", "what the holder does: cpu or sleep"},
                   {"thinker", "sleep", "what a worker does between requests: cpu or sleep"},
                   {"kind", "normal",
                    "normal, recursive, errorcheck, adaptive, robust, timed, clock or std"}});
  Settings settings{options.us_in_ns("hold-us"), options.us_in_ns("think-us"),
                    options.choice("holder", {"sleep", "cpu"}) == 1,
                    options.choice("thinker", {"sleep", "cpu"}) == 1,
                    options.choice("kind", kKinds)};
  size_t threads = options.count("threads"), locks = std::max<size_t>(1, options.count("locks"));

  Run run(options);
  Crew crew;
  Ledger main_ledger;
  std::vector<Ledger> ledgers(threads);
  std::vector<SessionStore*> stores(locks);
  for (SessionStore*& store : stores) store = new SessionStore(settings);
  for (size_t i = 0; i < threads; ++i)
    crew.add([&, i] { RequestWorker(*stores[i % locks], settings, run, ledgers[i]).run(); });
  crew.run(run, main_ledger);

  Ledger total = sum(ledgers, main_ledger);
  uint64_t appended = 0;
  for (SessionStore* store : stores) appended += store->appended();
  if (appended != total.acquisitions) abort();  // the mutex did not exclude
  Report("timed_mutex")
      .run(run)
      .text("kind", options.text("kind"))
      .number("threads", threads)
      .number("locks", locks)
      .address("lock_address", stores[0]->mutex())
      .stack("waiter_stack", {"SessionStore::lock_sessions", "SessionStore::append",
                              "RequestWorker::serve", "RequestWorker::run"})
      .stack("holder_stack", {"SessionStore::unlock_sessions", "SessionStore::append",
                              "RequestWorker::serve", "RequestWorker::run"})
      .ledger(total)
      .print();
}
