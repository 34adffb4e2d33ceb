// What the timed workloads share: options, the clock, one ledger a thread, the report.
//
// A workload contends in a known way, times every wait and hold itself on CLOCK_MONOTONIC, and
// prints one JSON line on stdout when it ends. A tracer that watched the whole run must agree.
//
// Fields that every workload reports (all times in nanoseconds, summed over its threads):
//   lock_wait_ns, waits           calls that failed to get the lock at once, timed from just before
//                                 the blocking call to its return
//   slept_wait_ns, slept_waits    those of them in which the thread really slept (its voluntary
//                                 context switches rose); sleeps = how often, in all
//   hold_ns, holds                holds that followed such a sleep (priority inheritance: a blocking
//                                 call, the kernel may spin): from the return of that call to just
//                                 before the unlock; this is the "contended hold"
//   all_hold_ns, acquisitions     every hold, contended or not
//   idle_wait_ns, idle_waits      waits for work, for time or for a thread's end in which the thread
//                                 slept; join_wait_ns is the share of the main thread's joins in it
//   start_ns, stop_ns             CLOCK_MONOTONIC; every wait lies between them
//
// Between the ready file and the start nothing waits on a futex, so `--ready-file` and `--go-file`
// let a tracer attach by PID before the first wait. The tracer's cost (1 to 3 us a contended call)
// stays within 1 % for holds of 200 us and more, which is the default.
#pragma once

#include <pthread.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// A function that keeps its own name and its own frame: never inlined, cloned or specialised.
#define OWN_FRAME [[gnu::noipa]]

namespace workload {

// At the end of a function whose last act is a call: without it the call becomes a jump, and the
// function is missing from every stack.
inline void keep_frame() { asm volatile("" ::: "memory"); }

inline uint64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000 + uint64_t(t.tv_nsec);
}

inline timespec to_timespec(uint64_t ns) {
  return {time_t(ns / 1'000'000'000), long(ns % 1'000'000'000)};
}

inline void sleep_until_ns(uint64_t deadline_ns) {
  timespec t = to_timespec(deadline_ns);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr) == EINTR) {
  }
}
inline void sleep_ns(uint64_t ns) { sleep_until_ns(now_ns() + ns); }

inline void burn_ns(uint64_t ns) {
  for (uint64_t deadline = now_ns() + ns; now_ns() < deadline;) {
  }
}

// On the CPU or asleep, for the given time.
inline void spend_ns(uint64_t ns, bool on_cpu) {
  if (ns == 0) return;
  on_cpu ? burn_ns(ns) : sleep_ns(ns);
}

inline uint64_t voluntary_switches() {
  rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return uint64_t(usage.ru_nvcsw);
}

// --- options: `--name value`, all of them with a default ---------------------------------------

class Options {
 public:
  struct Option {
    const char* name;
    std::string value;
    const char* help;
  };

  Options(int argc, char** argv, std::vector<Option> own) : options_(std::move(own)) {
    options_.push_back({"seconds", options_default("seconds", "2"), "how long to run"});
    options_.push_back({"ready-file", "", "write the PID here when ready to start"});
    options_.push_back({"go-file", "", "start only when this file exists"});
    for (int i = 1; i < argc; i += 2) {
      std::string_view name = argv[i];
      if (name == "--help") usage(argv[0], stdout, 0);
      Option* option = name.substr(0, 2) == "--" ? find(name.substr(2)) : nullptr;
      if (!option || i + 1 == argc) {
        fprintf(stderr, "%s: bad option %s\n", argv[0], argv[i]);
        usage(argv[0], stderr, 2);
      }
      option->value = argv[i + 1];
    }
  }

  const std::string& text(std::string_view name) const {
    for (const Option& option : options_)
      if (name == option.name) return option.value;
    fprintf(stderr, "no option called %.*s\n", int(name.size()), name.data());
    abort();
  }
  double number(std::string_view name) const {
    char* end;
    double value = strtod(text(name).c_str(), &end);
    if (*end || text(name).empty() || value < 0) fail(name);
    return value;
  }
  uint64_t count(std::string_view name) const { return uint64_t(number(name)); }
  uint64_t us_in_ns(std::string_view name) const { return uint64_t(number(name) * 1e3); }
  bool is(std::string_view name, std::string_view value) const { return text(name) == value; }
  // The value must be one of these; returns its index.
  size_t choice(std::string_view name, const std::vector<const char*>& values) const {
    for (size_t i = 0; i < values.size(); ++i)
      if (text(name) == values[i]) return i;
    fail(name);
  }

 private:
  // A workload's own default for a common option, taken out of its list.
  std::string options_default(std::string_view name, const char* otherwise) {
    for (size_t i = 0; i < options_.size(); ++i) {
      if (name != options_[i].name) continue;
      std::string value = options_[i].value;
      options_.erase(options_.begin() + long(i));
      return value;
    }
    return otherwise;
  }
  Option* find(std::string_view name) {
    for (Option& option : options_)
      if (name == option.name) return &option;
    return nullptr;
  }
  [[noreturn]] void fail(std::string_view name) const {
    fprintf(stderr, "bad value for --%.*s: %s\n", int(name.size()), name.data(),
            text(name).c_str());
    exit(2);
  }
  [[noreturn]] void usage(const char* program, FILE* out, int code) const {
    fprintf(out, "usage: %s [--option value]...\n", program);
    for (const Option& option : options_)
      fprintf(out, "  --%-12s %s (default: %s)\n", option.name, option.help,
              option.value.empty() ? "none" : option.value.c_str());
    exit(code);
  }

  std::vector<Option> options_;
};

// --- the ledger: one a thread, no sharing while it runs ------------------------------------------

struct alignas(128) Ledger {
  uint64_t lock_wait_ns = 0, waits = 0;
  uint64_t slept_wait_ns = 0, slept_waits = 0, sleeps = 0, longest_wait_ns = 0;
  uint64_t hold_ns = 0, holds = 0;
  uint64_t all_hold_ns = 0, acquisitions = 0;
  uint64_t idle_wait_ns = 0, idle_waits = 0, join_wait_ns = 0;

  void add(const Ledger& other) {
    lock_wait_ns += other.lock_wait_ns, waits += other.waits;
    slept_wait_ns += other.slept_wait_ns, slept_waits += other.slept_waits;
    sleeps += other.sleeps;
    if (other.longest_wait_ns > longest_wait_ns) longest_wait_ns = other.longest_wait_ns;
    hold_ns += other.hold_ns, holds += other.holds;
    all_hold_ns += other.all_hold_ns, acquisitions += other.acquisitions;
    idle_wait_ns += other.idle_wait_ns, idle_waits += other.idle_waits;
    join_wait_ns += other.join_wait_ns;
  }
};

// When the lock was got, and whether that counts as contended.
struct Acquired {
  uint64_t at_ns = 0;
  bool contended = false;
};

// Whether a call that had to block, but met the lock free before it slept, is a contended one. It is
// for locks that the kernel itself hands over, and may spin for (priority inheritance).
enum class Contended { kIfSlept, kIfBlocked };

// Tries, and only when that fails blocks, with the clock around the blocking call alone.
// Always inline: on a stack only the caller, which has a service's name, is to be seen.
template <typename Try, typename Block>
[[gnu::always_inline]] inline Acquired acquire(Ledger& ledger, Try&& try_lock, Block&& lock,
                                               Contended contended = Contended::kIfSlept) {
  ++ledger.acquisitions;
  if (try_lock()) return {now_ns(), false};
  uint64_t switches = voluntary_switches();
  uint64_t before = now_ns();
  lock();
  uint64_t after = now_ns();
  uint64_t sleeps = voluntary_switches() - switches;
  uint64_t waited = after - before;
  ledger.lock_wait_ns += waited;
  ++ledger.waits;
  if (sleeps) {
    ledger.slept_wait_ns += waited;
    ++ledger.slept_waits;
    ledger.sleeps += sleeps;
    if (waited > ledger.longest_wait_ns) ledger.longest_wait_ns = waited;
  }
  return {after, sleeps > 0 || contended == Contended::kIfBlocked};
}

// Call just before the unlock.
inline void end_hold(Ledger& ledger, const Acquired& acquired) {
  uint64_t held = now_ns() - acquired.at_ns;
  ledger.all_hold_ns += held;
  if (!acquired.contended) return;
  ledger.hold_ns += held;
  ++ledger.holds;
}

// A wait for work, time or another thread; counts only if the thread slept. Returns the time.
template <typename Wait>
[[gnu::always_inline]] inline uint64_t idle(Ledger& ledger, Wait&& wait) {
  uint64_t switches = voluntary_switches();
  uint64_t before = now_ns();
  wait();
  uint64_t waited = now_ns() - before;
  if (voluntary_switches() == switches) return 0;
  ledger.idle_wait_ns += waited;
  ++ledger.idle_waits;
  return waited;
}

inline void join(Ledger& ledger, pthread_t thread) {
  if (pthread_tryjoin_np(thread, nullptr) == 0) return;
  ledger.join_wait_ns += idle(ledger, [&] { pthread_join(thread, nullptr); });
}

// --- the run: ready, go, stop ---------------------------------------------------------------------

class Run {
 public:
  explicit Run(const Options& options)
      : seconds_(options.number("seconds")),
        ready_file_(options.text("ready-file")),
        go_file_(options.text("go-file")) {}

  // Says that the program is ready, waits for the go file if one is wanted, and starts.
  void start() {
    if (!ready_file_.empty()) {
      std::string partial = ready_file_ + ".partial";
      FILE* out = fopen(partial.c_str(), "w");
      if (!out) {
        perror(partial.c_str());
        exit(1);
      }
      fprintf(out, "%d\n", getpid());
      fclose(out);
      rename(partial.c_str(), ready_file_.c_str());
    }
    while (!go_file_.empty() && access(go_file_.c_str(), F_OK) != 0) sleep_ns(2'000'000);
    start_ns_ = now_ns();
    deadline_ns_ = start_ns_ + uint64_t(seconds_ * 1e9);
    started_.store(true, std::memory_order_release);
  }

  // For threads made before the start. Polls: a futex here would be seen by the tracer.
  void await_start() const {
    while (!started_.load(std::memory_order_acquire)) sleep_ns(500'000);
  }

  bool over() const { return now_ns() >= deadline_ns_; }
  void sleep_to_end() const { sleep_until_ns(deadline_ns_); }
  void stop() { stop_ns_ = now_ns(); }
  uint64_t start_ns() const { return start_ns_; }
  uint64_t stop_ns() const { return stop_ns_; }
  double elapsed_s() const { return double(stop_ns_ - start_ns_) / 1e9; }

 private:
  double seconds_;
  std::string ready_file_, go_file_;
  uint64_t start_ns_ = 0, deadline_ns_ = 0, stop_ns_ = 0;
  std::atomic<bool> started_{false};
};

// Runs body(i) on one thread each, from the start of the run until all have returned. The thread's
// first own frame is body's.
class Crew {
 public:
  void add(std::function<void()> body) { bodies_.push_back(std::move(body)); }

  // Without a deadline the bodies end by themselves.
  void run(Run& run, Ledger& main_ledger, bool has_deadline = true) {
    run_ = &run;
    std::vector<pthread_t> threads(bodies_.size());
    std::vector<Start> starts(bodies_.size());
    for (size_t i = 0; i < bodies_.size(); ++i) {
      starts[i] = {this, i};
      if (int error = pthread_create(&threads[i], nullptr, enter, &starts[i])) {
        fprintf(stderr, "pthread_create: %s\n", strerror(error));
        exit(1);
      }
    }
    run.start();
    if (has_deadline) run.sleep_to_end();
    for (pthread_t thread : threads) join(main_ledger, thread);
    run.stop();
  }

 private:
  struct Start {
    Crew* crew;
    size_t index;
  };
  static void* enter(void* argument) {
    auto* start = static_cast<Start*>(argument);
    start->crew->run_->await_start();
    start->crew->bodies_[start->index]();
    return nullptr;
  }

  Run* run_ = nullptr;
  std::vector<std::function<void()>> bodies_;
};

// --- the report -----------------------------------------------------------------------------------

class Report {
 public:
  explicit Report(const char* program) { text("program", program); }

  // `value` is plain text of ours: no quotes, no control characters.
  Report& text(const char* name, const std::string& value) {
    return raw(name, '"' + value + '"');
  }
  Report& number(const char* name, uint64_t value) { return raw(name, std::to_string(value)); }
  Report& number(const char* name, double value) {
    char digits[64];
    snprintf(digits, sizeof digits, "%.3f", value);
    return raw(name, digits);
  }
  // As text, because JSON's numbers are doubles to many readers.
  Report& address(const char* name, const volatile void* value) {
    char digits[32];
    snprintf(digits, sizeof digits, "0x%lx", long(value));
    return text(name, digits);
  }
  Report& stack(const char* name, const std::vector<const char*>& functions) {
    std::string list;
    for (const char* function : functions) {
      if (!list.empty()) list += ',';
      list += '"';
      list += function;
      list += '"';
    }
    return raw(name, '[' + list + ']');
  }
  Report& run(const Run& run) {
    number("pid", uint64_t(getpid()));
    number("start_ns", run.start_ns()).number("stop_ns", run.stop_ns());
    return number("elapsed_s", run.elapsed_s());
  }
  Report& ledger(const Ledger& l) {
    number("lock_wait_ns", l.lock_wait_ns).number("waits", l.waits);
    number("slept_wait_ns", l.slept_wait_ns).number("slept_waits", l.slept_waits);
    number("sleeps", l.sleeps).number("longest_wait_ns", l.longest_wait_ns);
    number("hold_ns", l.hold_ns).number("holds", l.holds);
    number("all_hold_ns", l.all_hold_ns).number("acquisitions", l.acquisitions);
    number("idle_wait_ns", l.idle_wait_ns).number("idle_waits", l.idle_waits);
    return number("join_wait_ns", l.join_wait_ns);
  }
  void print() {
    line_ += "}\n";
    fwrite(line_.data(), 1, line_.size(), stdout);
    fflush(stdout);
  }

 private:
  Report& raw(const char* name, const std::string& value) {
    line_ += line_.empty() ? "{" : ", ";
    line_ += '"' + std::string(name) + "\": " + value;
    return *this;
  }
  std::string line_;
};

inline Ledger sum(const std::vector<Ledger>& ledgers, const Ledger& main_ledger) {
  Ledger total = main_ledger;
  for (const Ledger& ledger : ledgers) total.add(ledger);
  return total;
}

}  // namespace workload
