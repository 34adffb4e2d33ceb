// A service whose requests look up a configuration under a reader/writer lock that a reloader takes
// exclusively.
//
// A right tracer sees: waits on a reader/writer lock, readers' under ConfigStore::lookup and
// writers' under ConfigStore::reload; read_wait_ns + write_wait_ns in all, charged to whoever let
// the waiters in: for readers the writer's unlock, for a writer the last reader's (or another
// writer's). Writers' contended holds (write_hold_ns / write_holds) always end in the kernel when
// somebody waits; a reader's hold ends there only if it was the last reader out.
//
// glibc's rwlock sleeps on two words, one for each of the phases and one for queueing writers: both
// belong to the same lock.
#include <shared_mutex>

#include "workload.h"

using namespace workload;

enum Kind { kPreferReader, kPreferWriter, kStd };
const std::vector<const char*> kKinds = {"prefer-reader", "prefer-writer", "std"};

struct Settings {
  uint64_t read_hold_ns, write_hold_ns, think_ns, reload_every_ns;
  bool hold_on_cpu;
  size_t kind;
};

class ConfigStore {
 public:
  explicit ConfigStore(const Settings& settings) : settings_(settings) {
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    if (settings.kind == kPreferWriter)
      pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&lock_, &attributes);
    pthread_rwlockattr_destroy(&attributes);
  }

  OWN_FRAME void lookup(Ledger& ledger) {
    Acquired acquired = lock_shared(ledger);
    find_route();
    if (version_ != copy_) abort();  // a writer was inside
    end_hold(ledger, acquired);
    unlock_shared();
    keep_frame();
  }
  OWN_FRAME void reload(Ledger& ledger) {
    Acquired acquired = lock_exclusive(ledger);
    ++version_;
    parse_file();
    copy_ = version_;
    end_hold(ledger, acquired);
    unlock_exclusive();
    keep_frame();
  }

  const void* address() { return settings_.kind == kStd ? (void*)&std_lock_ : (void*)&lock_; }

 private:
  bool std_kind() const { return settings_.kind == kStd; }

  OWN_FRAME Acquired lock_shared(Ledger& ledger) {
    return acquire(
        ledger,
        [this] {
          return std_kind() ? std_lock_.try_lock_shared() : !pthread_rwlock_tryrdlock(&lock_);
        },
        [this] { std_kind() ? std_lock_.lock_shared() : (void)pthread_rwlock_rdlock(&lock_); });
  }
  OWN_FRAME Acquired lock_exclusive(Ledger& ledger) {
    return acquire(
        ledger,
        [this] { return std_kind() ? std_lock_.try_lock() : !pthread_rwlock_trywrlock(&lock_); },
        [this] { std_kind() ? std_lock_.lock() : (void)pthread_rwlock_wrlock(&lock_); });
  }
  OWN_FRAME void unlock_shared() {
    std_kind() ? std_lock_.unlock_shared() : (void)pthread_rwlock_unlock(&lock_);
    keep_frame();
  }
  OWN_FRAME void unlock_exclusive() {
    std_kind() ? std_lock_.unlock() : (void)pthread_rwlock_unlock(&lock_);
    keep_frame();
  }
  OWN_FRAME void find_route() { spend_ns(settings_.read_hold_ns, settings_.hold_on_cpu); }
  OWN_FRAME void parse_file() { spend_ns(settings_.write_hold_ns, settings_.hold_on_cpu); }

  const Settings& settings_;
  alignas(64) pthread_rwlock_t lock_;
  alignas(64) std::shared_mutex std_lock_;
  alignas(64) uint64_t version_ = 0, copy_ = 0;
};

class Router {
 public:
  Router(ConfigStore& config, const Settings& settings, const Run& run, Ledger& ledger)
      : config_(config), settings_(settings), run_(run), ledger_(ledger) {}

  OWN_FRAME void run_requests() {
    while (!run_.over()) route();
  }
  OWN_FRAME void run_reloads() {
    while (!run_.over()) watch_file();
  }

 private:
  OWN_FRAME void route() {
    sleep_ns(settings_.think_ns);
    config_.lookup(ledger_);
    keep_frame();
  }
  OWN_FRAME void watch_file() {
    sleep_ns(settings_.reload_every_ns);
    config_.reload(ledger_);
    keep_frame();
  }

  ConfigStore& config_;
  const Settings& settings_;
  const Run& run_;
  Ledger& ledger_;
};

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"readers", "4", "request threads"},
                   {"writers", "1", "reloading threads"},
                   {"read-hold-us", "300", "time in a lookup"},
                   {"write-hold-us", "2000", "time in a reload"},
                   {"think-us", "500", "a reader's pause, asleep"},
                   {"reload-us", "3000", "a writer's pause, asleep"},
                   {"holder", "cpu", "what a holder does: cpu or sleep"},
                   {"kind", "prefer-reader", "prefer-reader, prefer-writer or std"}});
  Settings settings{options.us_in_ns("read-hold-us"), options.us_in_ns("write-hold-us"),
                    options.us_in_ns("think-us"),     options.us_in_ns("reload-us"),
                    options.choice("holder", {"sleep", "cpu"}) == 1,
                    options.choice("kind", kKinds)};
  size_t readers = options.count("readers"), writers = options.count("writers");

  Run run(options);
  Crew crew;
  Ledger main_ledger;
  std::vector<Ledger> read_ledgers(readers), write_ledgers(writers);
  ConfigStore config(settings);
  for (Ledger& ledger : read_ledgers)
    crew.add([&] { Router(config, settings, run, ledger).run_requests(); });
  for (Ledger& ledger : write_ledgers)
    crew.add([&] { Router(config, settings, run, ledger).run_reloads(); });
  crew.run(run, main_ledger);

  Ledger read = sum(read_ledgers, {}), write = sum(write_ledgers, {});
  Ledger total = main_ledger;
  total.add(read);
  total.add(write);
  Report("timed_rwlock")
      .run(run)
      .text("kind", options.text("kind"))
      .number("readers", readers)
      .number("writers", writers)
      .address("lock_address", config.address())
      .number("lock_bytes", uint64_t(sizeof(pthread_rwlock_t)))
      .stack("reader_stack", {"ConfigStore::lock_shared", "ConfigStore::lookup", "Router::route",
                              "Router::run_requests"})
      .stack("writer_stack", {"ConfigStore::lock_exclusive", "ConfigStore::reload",
                              "Router::watch_file", "Router::run_reloads"})
      .number("read_wait_ns", read.lock_wait_ns)
      .number("read_waits", read.waits)
      .number("read_hold_ns", read.hold_ns)
      .number("read_holds", read.holds)
      .number("write_wait_ns", write.lock_wait_ns)
      .number("write_waits", write.waits)
      .number("write_hold_ns", write.hold_ns)
      .number("write_holds", write.holds)
      .ledger(total)
      .print();
}
