// An event bus on raw futexes, in the ways in which one call touches two words: waiters that move.
//
//   requeue     subscribers sleep on `event`; publish() takes the lock and moves them all to it with
//               CMP_REQUEUE; then each in turn gets the lock, works --hold-us, and lets the next in.
//               idle_wait_ns is the time on `event`, up to the move; lock_wait_ns is the time on
//               `lock`, from the move. A tracer that charges the whole sleep to the first word is
//               wrong by lock_wait_ns; each hold is charged with those still queued behind it.
//   futex2      the same with futex_wait, futex_wake and futex_requeue (Linux 6.7)
//   requeue-pi  the same with WAIT_REQUEUE_PI and CMP_REQUEUE_PI onto a priority-inheritance lock:
//               the waiter owns the lock when its call returns
//   wake-op     contenders sleep on `lock`, one subscriber on `event`; publish() releases the lock,
//               wakes a contender and the subscriber with one WAKE_OP. lock_wait_ns is charged to
//               publish(), which never calls FUTEX_WAKE
//   waitv       subscribers sleep on --words words at once (futex_waitv, Linux 5.16), publishers wake
//               one word in turn: idle_wait_ns
//
// What the kernel does not have ends the program with 77 and one line on stderr.
#include "raw_futex.h"

using namespace workload;

struct Settings {
  uint64_t hold_ns, think_ns;
  size_t mode, words;
  bool hold_on_cpu;
};
enum Mode { kRequeue, kFutex2, kRequeuePi, kWakeOp, kWaitv };
const std::vector<const char*> kModes = {"requeue", "futex2", "requeue-pi", "wake-op", "waitv"};

static void require(long outcome, const char* call) {
  if (outcome >= 0) return;
  fprintf(stderr, "%s: %s\n", call, strerror(int(-outcome)));
  exit(outcome == -ENOSYS ? 77 : 1);
}

class EventBus {
 public:
  EventBus(const Settings& settings, size_t subscribers)
      : settings_(settings), subscribers_(subscribers), words_(settings.words) {}

  // requeue, futex2, requeue-pi: one event, one turn with the lock.
  OWN_FRAME void await_event(Ledger& ledger) {
    uint32_t seen = event_.load(std::memory_order_acquire);
    asleep_.fetch_add(1);
    uint64_t before = now_ns(), after;
    if (settings_.mode == kRequeuePi) {
      while (futex_wait_requeue_pi(event_, seen, lock_.word()) != 0) {
        if (event_.load() != seen) {  // too late to sleep
          require(futex_lock_pi(lock_.word()), "FUTEX_LOCK_PI");
          break;
        }
      }
      after = now_ns();
    } else {
      // Woken only when the lock was released to it; nobody barges in.
      while (event_.load() == seen) wait_on(event_, seen);
      lock_.lock([this](Word& word, uint32_t value) { wait_on(word, value); });
      after = now_ns();
    }
    uint64_t moved = moved_ns_.load();
    ledger.idle_wait_ns += moved - before;
    ledger.lock_wait_ns += after - moved;
    ++ledger.idle_waits, ++ledger.waits, ++ledger.acquisitions;
    handle_event();
    end_hold(ledger, {after, true});
    let_next_in();
    handled_.fetch_add(1);
  }

  OWN_FRAME bool publish(const Run& run) {
    while (asleep_.load() < subscribers_) sleep_ns(200'000);
    sleep_ns(settings_.think_ns);  // long enough for the last to be in the kernel
    asleep_.store(0), handled_.store(0);
    if (settings_.mode == kRequeuePi) {
      uint32_t free = 0, self = uint32_t(gettid());
      while (!lock_.word().compare_exchange_strong(free, self)) {
        if (futex_lock_pi(lock_.word()) == 0) break;
        free = 0;
      }
    } else if (!lock_.try_lock()) {
      abort();
    }
    if (run.over()) over_.store(true);
    move_waiters();
    handle_event();  // the publisher's own turn, uncontended
    let_next_in();
    while (handled_.load() < subscribers_) sleep_ns(200'000);
    ++published_;
    return !over_.load();
  }

  // wake-op: contenders on the lock, one subscriber on the event.
  OWN_FRAME void update_and_publish(Ledger& ledger) {
    Acquired acquired = lock_bus(ledger);
    handle_event();
    end_hold(ledger, acquired);
    release_and_signal();
    keep_frame();
  }
  OWN_FRAME void await_signal(Ledger& ledger) {
    uint32_t seen = event_.load(std::memory_order_acquire);
    if (over_.load()) return;
    idle(ledger, [&] { futex_wait(event_, seen); });
  }
  void close() {
    over_.store(true);
    event_.fetch_add(1);
    futex_wake(event_, INT32_MAX);
    for (Word& word : words_) {
      word.fetch_add(1);
      futex_wake(word, INT32_MAX);
    }
  }

  // waitv
  OWN_FRAME void await_any(std::vector<uint32_t>& seen, Ledger& ledger) {
    FutexWaitv waiters[128];
    for (size_t i = 0; i < words_.size(); ++i)
      waiters[i] = {seen[i], uint64_t(&words_[i]), kFutex2U32Private};
    idle(ledger, [&] {
      long outcome = futex_wait_any(waiters, unsigned(words_.size()));
      if (outcome != -EAGAIN && outcome != -EINTR) require(outcome, "futex_waitv");
    });
    for (size_t i = 0; i < words_.size(); ++i) seen[i] = words_[i].load();
  }
  OWN_FRAME void publish_one(size_t index) {
    Word& word = words_[index % words_.size()];
    word.fetch_add(1);
    futex_wake(word, INT32_MAX);
    ++published_;
    keep_frame();
  }

  bool over() const { return over_.load(); }
  uint64_t published() const { return published_; }
  const void* event_address() const { return &event_; }
  const void* lock_address() { return &lock_.word(); }
  const void* words_address() const { return words_.data(); }

 private:
  void wait_on(Word& word, uint32_t value) {
    settings_.mode == kFutex2 ? futex2_wait(word, value) : futex_wait(word, value);
  }
  // Holding the lock: everybody goes from the event to the lock, nobody wakes up (for the
  // priority-inheritance kind the kernel insists on trying one).
  OWN_FRAME void move_waiters() {
    uint32_t next = event_.fetch_add(1) + 1;
    if (settings_.mode != kRequeuePi) lock_.mark_contended();
    moved_ns_.store(now_ns());
    long moved;
    if (settings_.mode == kRequeuePi)
      moved = futex_cmp_requeue_pi(event_, INT32_MAX, lock_.word(), next);
    else if (settings_.mode == kFutex2)
      moved = futex2_requeue(event_, 0, INT32_MAX, lock_.word(), next);
    else
      moved = futex_cmp_requeue(event_, 0, INT32_MAX, lock_.word(), next);
    require(moved, "requeue");
    late_ += subscribers_ - std::min(size_t(moved), subscribers_);
  }
  OWN_FRAME void let_next_in() {
    if (settings_.mode == kRequeuePi) {
      uint32_t self = uint32_t(gettid());
      if (!lock_.word().compare_exchange_strong(self, 0))
        require(futex_unlock_pi(lock_.word()), "FUTEX_UNLOCK_PI");
    } else if (lock_.release()) {
      settings_.mode == kFutex2 ? futex2_wake(lock_.word(), 1) : futex_wake(lock_.word(), 1);
    }
    keep_frame();
  }
  OWN_FRAME Acquired lock_bus(Ledger& ledger) {
    return acquire(
        ledger, [this] { return lock_.try_lock(); },
        [this] { lock_.lock([](Word& word, uint32_t value) { futex_wait(word, value); }); });
  }
  // event: wake one; lock: set to 0, and if it was 2, wake one there too.
  OWN_FRAME void release_and_signal() {
    event_.fetch_add(1);
    ++published_;
    futex_wake_op(event_, 1, lock_.word(), 1,
                  FUTEX_OP(FUTEX_OP_SET, 0, FUTEX_OP_CMP_EQ, 2));
    keep_frame();
  }
  OWN_FRAME void handle_event() { spend_ns(settings_.hold_ns, settings_.hold_on_cpu); }

 public:
  uint64_t late() const { return late_; }

 private:
  const Settings& settings_;
  const size_t subscribers_;
  alignas(64) Word event_{0};
  RawLock lock_;
  std::vector<Word> words_;
  std::atomic<uint64_t> moved_ns_{0};
  std::atomic<size_t> asleep_{0}, handled_{0};
  std::atomic<bool> over_{false};
  std::atomic<uint64_t> published_{0};
  uint64_t late_ = 0;
};

OWN_FRAME void subscribe(EventBus& bus, Ledger& ledger) {
  while (!bus.over()) bus.await_event(ledger);
}
OWN_FRAME void run_publisher(EventBus& bus, const Run& run) {
  while (bus.publish(run)) {
  }
}

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"mode", "requeue", "requeue, futex2, requeue-pi, wake-op or waitv"},
                   {"threads", "4", "subscribers (wake-op: contenders)"},
                   {"hold-us", "300", "time with the lock"},
                   {"think-us", "2000", "time between two events, asleep"},
                   {"holder", "cpu", "what a holder does: cpu or sleep"},
                   {"words", "8", "waitv: words waited for at once, at most 128"}});
  Settings settings{options.us_in_ns("hold-us"), options.us_in_ns("think-us"),
                    options.choice("mode", kModes),
                    std::clamp<size_t>(options.count("words"), 1, 128),
                    options.choice("holder", {"sleep", "cpu"}) == 1};
  size_t threads = options.count("threads");
  EventBus bus(settings, threads);

  // Asked before the run, so that a kernel without the call is told apart from a failure.
  Word probe{1};
  FutexWaitv one{0, uint64_t(&probe), kFutex2U32Private};
  if (settings.mode == kWaitv && futex_wait_any(&one, 1) == -ENOSYS) require(-ENOSYS, "futex_waitv");
  if (settings.mode == kFutex2 && futex2_wait(probe, 0) == -ENOSYS)
    require(-ENOSYS, "futex_wait (futex2)");

  Run run(options);
  Crew crew;
  Ledger main_ledger;
  std::vector<Ledger> ledgers(threads + 1);
  if (settings.mode == kWakeOp) {
    static std::atomic<size_t> contending;
    contending = threads;
    for (size_t i = 0; i < threads; ++i) {
      crew.add([&, i] {
        while (!run.over()) {
          sleep_ns(settings.think_ns / 4);
          bus.update_and_publish(ledgers[i]);
        }
        if (contending.fetch_sub(1) == 1) bus.close();
      });
    }
    crew.add([&] {
      while (!bus.over()) bus.await_signal(ledgers[threads]);
    });
  } else if (settings.mode == kWaitv) {
    for (size_t i = 0; i < threads; ++i) {
      crew.add([&, i] {
        std::vector<uint32_t> seen(settings.words);
        while (!bus.over()) bus.await_any(seen, ledgers[i]);
      });
    }
    crew.add([&] {
      for (size_t i = 0; !run.over(); ++i) {
        sleep_ns(settings.think_ns);
        bus.publish_one(i);
      }
      bus.close();
    });
  } else {
    for (size_t i = 0; i < threads; ++i) crew.add([&, i] { subscribe(bus, ledgers[i]); });
    crew.add([&] { run_publisher(bus, run); });
  }
  crew.run(run, main_ledger);

  Report report("timed_requeue");
  report.run(run)
      .text("mode", options.text("mode"))
      .number("threads", uint64_t(threads))
      .number("published", bus.published())
      .number("late", bus.late())  // subscribers that were not asleep when moved; 0 is exact
      .address("event_address",
               settings.mode == kWaitv ? bus.words_address() : bus.event_address())
      .address("lock_address", bus.lock_address());
  if (settings.mode <= kRequeuePi)
    report.stack("waiter_stack", {"EventBus::await_event", "subscribe"})
        .stack("holder_stack", {"EventBus::let_next_in", "EventBus::await_event", "subscribe"});
  report.ledger(sum(ledgers, main_ledger)).print();
}
