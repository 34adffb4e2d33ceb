#include "record/pthread_tier.h"

#include <bpf/bpf.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "record/raw_tables.h"

namespace lockscope {
namespace {

// How long probes that are yet to be placed may wait.
constexpr uint64_t kServeNs = 50'000'000;

// CPU time of a process, all of its threads, those that have ended included; 0 if it
// is gone.
uint64_t process_cpu_ns(pid_t pid) {
  clockid_t clock;
  timespec time{};
  if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &time) != 0) return 0;
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

uint64_t all_hits(const PthreadProbe& probe) {
  const auto hits = probe.hits();
  return std::accumulate(hits.begin(), hits.end(), uint64_t{0});
}

}  // namespace

PthreadTier::PthreadTier(FutexProbe& futex, FileParser& parser, const Options& options)
    : futex_(&futex), parser_(&parser), options_(options) {}

Status PthreadTier::load() {
  auto probe = PthreadProbe::open(*futex_, options_.stack_rate);
  if (!probe) return probe.error();
  probe_.emplace(std::move(*probe));
  if (Status done = probe_->calibrate(*parser_); !done.ok()) {
    spdlog::debug("what probes cost is not known: {}", done.error().message);
  }
  probe_->mark_holders(options_.mark_holders);
  duty_.emplace(options_.budget_percent, !probe_->fast(), std::random_device{}());
  return {};
}

DutyCycle::Look PthreadTier::look() {
  uint64_t cpu = 0;
  for (auto& [pid, now] : cpu_) {
    now = std::max(now, process_cpu_ns(pid));
    cpu += now - cpu_before_[pid];
  }
  return {monotonic_ns(), cpu, static_cast<uint64_t>(std::max(0.0, probe_->spent_ns()))};
}

void PthreadTier::begin() {
  (void)duty_->decide(look());
  begin_slice(false);
  duty_->did(DutyCycle::Order::Attach, look());
}

// For slices after the first, events count when all probes are there.
void PthreadTier::begin_slice(bool probes_first) {
  std::erase_if(targets_, [](pid_t pid) { return process_cpu_ns(pid) == 0; });  // gone
  wanted_ = targets_;
  if (probes_first) {
    for (const pid_t pid : std::set<pid_t>(wanted_)) place(pid);
  }
  slice_start_ns_ = probe_->begin_slice();
  books_open_ = true;
  at_start_ = look();
  hits_ = all_hits(*probe_);
  active_ = true;
}

void PthreadTier::end_slice() {
  slice_stop_ns_ = probe_->end_slice();
  at_stop_ = look();
  hits_ = all_hits(*probe_) - hits_;
  active_ = false;
  // At once: who sleeps for what he asked for is known only for the present.
  RawTables::Table<uint32_t, ls_pthread> threads;
  if (auto read = read_pthreads(probe_->maps())) threads = std::move(*read);
  std::map<uint32_t, ls_thread> futex_threads;
  held_ = held_objects(threads, probe_->slice(), slice_stop_ns_, [&](uint32_t tid) -> const ls_thread* {
    ls_thread& thread = futex_threads[tid];
    return bpf_map_lookup_elem(futex_->maps().threads, &tid, &thread) == 0 ? &thread : nullptr;
  });
}

// Of a slice that is over, when its probes have gone.
void PthreadTier::close_books() {
  books_open_ = false;
  RawTables tables;
  if (!read_pthread_tables(probe_->maps(), tables).ok()) return;
  SliceBooks::Slice slice{.start_ns = slice_start_ns_, .stop_ns = slice_stop_ns_};
  const double length_ns = static_cast<double>(slice_stop_ns_ - slice_start_ns_);
  const double hit_ns = hits_ > 0 ? static_cast<double>(at_stop_.spent_ns - at_start_.spent_ns) /
                                        static_cast<double>(hits_)
                                  : 0;
  uint64_t releases = 0, cut = 0;
  for (const auto& [key, object] : tables.objects) {
    const uint64_t count =
        object.holds.count + object.read_holds.count + object.before_count;
    const uint64_t ns =
        object.holds.hold_total_ns + object.read_holds.hold_total_ns + object.before_ns;
    Sums& before = sums_[{key.process, key.address}];
    if (count != before.count || ns != before.ns) {
      const uint64_t ended = std::max<uint64_t>(count - before.count, 1);
      // A thread's hits at a release are half of what it had in the slice, on average.
      const double hits = 2 * static_cast<double>(object.hits - before.hits) / static_cast<double>(ended);
      slice.seen[{key.process, key.address}] = {count - before.count, ns - before.ns,
                                                std::min(1.0, hits * hit_ns / length_ns)};
    }
    before = {count, ns, object.hits};
    releases += count;
    cut += object.before_count;
  }
  for (const HeldObject& held : held_) {
    slice.seen[{held.process, held.address}].ns += slice_stop_ns_ - held.since_ns;
  }
  spdlog::debug("pthread tier: a slice of {:.1f} ms, {} hits of {:.0f} ns", length_ns * 1e-6, hits_,
                hit_ns);
  books_.add(std::move(slice));
  if (releases > 0) duty_->note_cut(static_cast<double>(cut) / static_cast<double>(releases));
}

void PthreadTier::end() {
  if (active_) end_slice();
  wanted_.clear();
  targets_.clear();
}

void PthreadTier::detach() {
  if (!probe_) return;
  probe_->detach();
  if (books_open_ && sliced_) close_books();
}

void PthreadTier::expect(pid_t pid) {
  (void)probe_->attach(pid, ::getpid(), *parser_).operator bool();
}

void PthreadTier::want(pid_t pid) {
  wanted_.insert(pid);
  targets_.insert(pid);
  if (cpu_before_.emplace(pid, process_cpu_ns(pid)).second) cpu_[pid] = cpu_before_[pid];
}

void PthreadTier::place(pid_t pid) {
  const auto placed = probe_->attach(pid, pid, *parser_);
  if (!placed) spdlog::warn("no probes in process {}: {}", pid, placed.error().message);
  if (!placed || *placed) wanted_.erase(pid);
}

uint64_t PthreadTier::serve() {
  if (refused_ || targets_.empty()) return kServeNs;
  if (!probe_) {
    if (Status loaded = load(); !loaded.ok()) {
      spdlog::warn("{}", loaded.error().message);
      refused_ = true;
      return kServeNs;
    }
    sliced_ = true;  // it was not there from the beginning
  }
  if (active_) {
    for (const pid_t pid : std::set<pid_t>(wanted_)) place(pid);
  }
  switch (duty_->decide(look())) {
    case DutyCycle::Order::Stay: break;
    case DutyCycle::Order::Attach:
      begin_slice(true);
      duty_->did(DutyCycle::Order::Attach, look());
      break;
    case DutyCycle::Order::Detach:
      sliced_ = true;
      end_slice();
      probe_->detach();
      close_books();
      duty_->did(DutyCycle::Order::Detach, look());
      break;
  }
  return std::min(kServeNs, duty_->next_look_ns());
}

}  // namespace lockscope
