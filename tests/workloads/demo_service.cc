// A small shop back end with the usual mistakes in it, for `make demo` and for trying things out.
//
// Request workers authenticate, look up their route, append to the session store and write an audit
// entry; two ingest threads parse events and count each in a global registry; thumbnail workers wait
// for jobs; a reloader refreshes the routes. What a right tracer must see, worst first:
//   SessionStore   one std::mutex held for 2 ms of computation (sealing the record): the workers
//                  queue under SessionStore::append, the holder is on the CPU     -> long-hold
//   AuditLog       one std::mutex held across an fsync-like sleep of 4 ms under AuditLog::sync
//                                                                                 -> blocking-under-lock
//   StatsRegistry  a global std::mutex around a few additions, a few hundred thousand times a
//                  second, from Ingest::parse_event and every request             -> tiny-global-lock
//   RouteTable     a std::shared_mutex, readers stopped by a 25 ms reload twice a second
//   ThumbnailPool  workers asleep on a condition variable: nothing is wrong       -> idle-wait
#include <signal.h>

#include <array>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>

#include "workload.h"

using workload::burn_ns;
using workload::keep_frame;
using workload::sleep_ns;

static std::atomic<bool> stopping{false};

class StatsRegistry {
 public:
  // The metric's new total.
  OWN_FRAME uint64_t bump(size_t metric, uint64_t amount) {
    std::lock_guard<std::mutex> guard(mutex_);
    ++samples_[metric];
    largest_[metric] = std::max(largest_[metric], amount);
    return totals_[metric] += amount;
  }

 private:
  std::mutex mutex_;
  std::array<uint64_t, 16> totals_{}, samples_{}, largest_{};
};

class SessionStore {
 public:
  // The record's seal.
  OWN_FRAME uint64_t append(uint64_t session, const std::string& record) {
    std::lock_guard<std::mutex> guard(mutex_);
    uint64_t seal = seal_record(record);  // ought to be done before the lock
    return sessions_[session % 512] = seal;
  }

 private:
  // An expensive keyed hash; about 2 ms.
  OWN_FRAME uint64_t seal_record(const std::string& record) {
    uint64_t hash = 1469598103934665603u;
    for (uint64_t until = workload::now_ns() + 2'000'000; workload::now_ns() < until;)
      for (unsigned char byte : record) hash = (hash ^ byte) * 1099511628211u;
    return hash;
  }

  std::mutex mutex_;
  std::map<uint64_t, uint64_t> sessions_;
};

class AuditLog {
 public:
  // The entry's number.
  OWN_FRAME uint64_t write(uint64_t request) {
    std::lock_guard<std::mutex> guard(mutex_);
    last_ = request;
    sync();
    return ++entries_;
  }

 private:
  OWN_FRAME void sync() {
    sleep_ns(4'000'000);  // a disk's fsync
    keep_frame();
  }
  std::mutex mutex_;
  uint64_t last_ = 0, entries_ = 0;
};

class RouteTable {
 public:
  OWN_FRAME size_t find(uint64_t request) {
    std::shared_lock<std::shared_mutex> guard(mutex_);
    return routes_[request % routes_.size()];
  }
  // The new version.
  OWN_FRAME uint64_t reload() {
    std::unique_lock<std::shared_mutex> guard(mutex_);
    burn_ns(25'000'000);  // parses the whole file with everybody shut out
    for (size_t& route : routes_) route = (route + 1) % 16;
    return ++version_;
  }

 private:
  std::shared_mutex mutex_;
  std::array<size_t, 64> routes_{};
  uint64_t version_ = 0;
};

class ThumbnailPool {
 public:
  OWN_FRAME void submit(uint64_t job) {
    {
      std::lock_guard<std::mutex> guard(mutex_);
      jobs_.push_back(job);
    }
    ready_.notify_one();
  }
  OWN_FRAME void work() {
    while (take_job()) scale_image();
  }
  void close() {
    {
      std::lock_guard<std::mutex> guard(mutex_);
      closed_ = true;
    }
    ready_.notify_all();
  }

 private:
  OWN_FRAME bool take_job() {
    std::unique_lock<std::mutex> guard(mutex_);
    while (jobs_.empty() && !closed_) ready_.wait(guard);
    if (jobs_.empty()) return false;
    jobs_.pop_front();
    return true;
  }
  OWN_FRAME void scale_image() { burn_ns(300'000); }

  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<uint64_t> jobs_;
  bool closed_ = false;
};

struct Service {
  StatsRegistry stats;
  SessionStore sessions;
  AuditLog audit;
  RouteTable routes;
  ThumbnailPool thumbnails;
  std::atomic<uint64_t> served{0}, parsed{0};
};

class RequestWorker {
 public:
  RequestWorker(Service& service, uint64_t seed) : service_(service), random_(seed * 7919 + 1) {}

  OWN_FRAME void run() {
    while (!stopping.load(std::memory_order_relaxed)) {
      sleep_ns(500'000 + next() % 3'000'000);  // the network
      handle_request(next());
    }
  }

 private:
  OWN_FRAME void handle_request(uint64_t request) {
    size_t route = service_.routes.find(request);
    authenticate();
    service_.sessions.append(request, std::string(200, char('a' + route)));
    if (request % 3 == 0) service_.audit.write(request);
    if (request % 8 == 0) service_.thumbnails.submit(request);
    service_.stats.bump(route, request % 1000);
    service_.served.fetch_add(1, std::memory_order_relaxed);
  }
  OWN_FRAME void authenticate() { burn_ns(100'000); }
  uint64_t next() {
    random_ ^= random_ << 13, random_ ^= random_ >> 7, random_ ^= random_ << 17;
    return random_;
  }

  Service& service_;
  uint64_t random_;
};

class Ingest {
 public:
  explicit Ingest(Service& service) : service_(service) {}

  OWN_FRAME void run() {
    while (!stopping.load(std::memory_order_relaxed)) {
      sleep_ns(4'000'000);  // a batch arrives
      parse_batch();
    }
  }

 private:
  OWN_FRAME void parse_batch() {
    for (uint64_t event = 0; event < 10'000; ++event) parse_event(event);
    service_.parsed.fetch_add(10'000, std::memory_order_relaxed);
  }
  OWN_FRAME void parse_event(uint64_t event) {
    service_.stats.bump(event % 16, event);
    keep_frame();
  }
  Service& service_;
};

OWN_FRAME static void reload_routes(Service& service) {
  while (!stopping.load(std::memory_order_relaxed)) {
    sleep_ns(500'000'000);
    service.routes.reload();
  }
}

int main(int argc, char** argv) {
  workload::Options options(argc, argv,
                            {{"seconds", "20", "how long to run; SIGINT and SIGTERM end it early"},
                             {"workers", "6", "request workers"},
                             {"pid-file", "", "write the PID here when serving"}});
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  Service service;
  std::vector<std::thread> threads, thumbnailers;
  auto start = [&threads](const char* name, auto body) {
    threads.emplace_back(body);
    pthread_setname_np(threads.back().native_handle(), name);
  };
  for (uint64_t i = 0; i < options.count("workers"); ++i)
    start("request", [&service, i] { RequestWorker(service, i + 1).run(); });
  for (int i = 0; i < 2; ++i) start("ingest", [&service] { Ingest(service).run(); });
  start("reload", [&service] { reload_routes(service); });
  for (int i = 0; i < 3; ++i) {
    thumbnailers.emplace_back([&service] { service.thumbnails.work(); });
    pthread_setname_np(thumbnailers.back().native_handle(), "thumbnail");
  }

  printf("demo_service: pid %d, %zu request workers, up to %s s\n", getpid(),
         size_t(options.count("workers")), options.text("seconds").c_str());
  fflush(stdout);
  if (!options.text("pid-file").empty()) {
    FILE* out = fopen(options.text("pid-file").c_str(), "w");
    if (!out) {
      perror(options.text("pid-file").c_str());
      return 1;
    }
    fprintf(out, "%d\n", getpid());
    fclose(out);
  }

  uint64_t began = workload::now_ns();
  timespec limit = workload::to_timespec(uint64_t(options.number("seconds") * 1e9));
  sigtimedwait(&signals, nullptr, &limit);
  stopping = true;
  double elapsed = double(workload::now_ns() - began) / 1e9;
  printf("demo_service: %llu requests (%.0f/s) and %llu events (%.0f/s) in %.1f s\n",
         (unsigned long long)service.served, double(service.served) / elapsed,
         (unsigned long long)service.parsed, double(service.parsed) / elapsed, elapsed);
  fflush(stdout);
  for (std::thread& thread : threads) thread.join();
  service.thumbnails.close();
  for (std::thread& thread : thumbnailers) thread.join();
}
