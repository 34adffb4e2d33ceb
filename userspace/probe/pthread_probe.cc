#include "probe/pthread_probe.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <pthread.h>
#include <semaphore.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

#include "probe/bpf_support.h"
#include "probe/uprobe.h"
#include "process/maps.h"
#include "process/pthread_libraries.h"
#include "pthread_compat.skel.h"
#include "pthread_modern.skel.h"

namespace lockscope {
namespace {

struct Loaded {
  std::shared_ptr<void> skeleton;
  bpf_object* object = nullptr;
  volatile __u32* slice = nullptr;
  volatile __u64* slice_start_ns = nullptr;
  volatile __u64* slice_stop_ns = nullptr;
  volatile __u32* mark_holders = nullptr;
  volatile __u32* after_ns = nullptr;
  volatile __u32* before_ns = nullptr;
  bool modern = false;
};

template <class Skeleton>
Result<Loaded> load(Skeleton* skeleton, void (*destroy)(Skeleton*), int (*do_load)(Skeleton*),
                    bool modern, bool multi, const FutexProbe& futex, uint32_t stack_rate) {
  if (skeleton == nullptr) {
    return unsupported(std::string("cannot open the BPF programs: ") + std::strerror(errno));
  }
  Loaded loaded;
  loaded.skeleton = std::shared_ptr<void>(
      skeleton, [destroy](void* memory) { destroy(static_cast<Skeleton*>(memory)); });
  skeleton->rodata->ls_own_tgid = static_cast<__u32>(::getpid());
  skeleton->rodata->ls_stack_rate = stack_rate;
  skeleton->rodata->ls_hash_seed = futex.hash_seed();
  if (Status shared = share_maps(skeleton->obj, futex.object()); !shared.ok()) return shared.error();
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, skeleton->obj) {
    if (multi) prepare_for_multi(program);
  }
  if (const int error = do_load(skeleton); error != 0) {
    return unsupported(std::string("cannot load the BPF programs of the pthread tier: ") +
                       std::strerror(-error));
  }
  loaded.object = skeleton->obj;
  loaded.slice = &skeleton->bss->ls_slice;
  loaded.slice_start_ns = &skeleton->bss->ls_slice_start_ns;
  loaded.slice_stop_ns = &skeleton->bss->ls_slice_stop_ns;
  loaded.mark_holders = &skeleton->bss->ls_mark_holders;
  loaded.after_ns = skeleton->bss->ls_after_ns;
  loaded.before_ns = skeleton->bss->ls_before_ns;
  loaded.modern = modern;
  return loaded;
}

Result<Loaded> load_variant(const FutexProbe& futex, uint32_t stack_rate, bool multi) {
  if (futex.variant() == "modern") {
    return load(pthread_modern__open(), pthread_modern__destroy, pthread_modern__load, true, multi,
                futex, stack_rate);
  }
  return load(pthread_compat__open(), pthread_compat__destroy, pthread_compat__load, false, false,
              futex, stack_rate);
}

// By placing a probe in ourselves, where nothing comes by: not in main() either.
bool takes_multi(const Loaded& loaded) {
  if (!loaded.modern) return false;
  const bpf_program* program = bpf_object__find_program_by_name(loaded.object, "pthread_call");
  // The first byte of a file is in no code: only the kind of link is asked for.
  const UprobePoint point{.file_offset = 0};
  return Uprobes::attach_multi(bpf_program__fd(program), ::getpid(), "/proc/self/exe", {&point, 1})
      .operator bool();
}

// What probes cost the thread that hits them, in ns.
struct HitCost {
  // On the machine that the tier was made on; a guess for others.
  double emulated_ns = 900;
  double stepped_ns = 12'000;
  double hold_ns = 0;  // of a hit at either end, what stands in the hold
};

constexpr int kBatches = 40, kPairs = 250, kSteps = 10;

double elapsed_ns(uint64_t since_ns) { return static_cast<double>(monotonic_ns() - since_ns); }

// Rows of a map that are about a process: of its keys, what `tgid_of` says.
template <class Key, class TgidOf>
void forget_process(int map, uint32_t tgid, TgidOf tgid_of) {
  std::vector<Key> ours;
  Key key{};
  for (const Key* at = nullptr; bpf_map_get_next_key(map, at, &key) == 0; at = &ours.back()) {
    ours.push_back(key);
  }
  for (const Key& one : ours) {
    if (tgid_of(one) == tgid) bpf_map_delete_elem(map, &one);
  }
}

}  // namespace

struct PthreadProbe::State {
  FutexProbe& futex;
  Loaded loaded;
  bool multi = false;
  PthreadMaps maps;
  using File = std::tuple<dev_t, ino_t, time_t, long>;

  // By process, and by file: probes stay when it becomes another program.
  std::map<std::pair<pid_t, File>, std::vector<Uprobes>> probes;
  std::map<File, Result<ProbePlan>> plans;
  HitCost cost;
  std::array<double, LS_CALLS> hit_ns{};
  double calibration_ns = 0;  // of what was spent, on ourselves

  void learn(const ProbePlan& plan);
};

// What the calls of a library's sites cost from now on.
void PthreadProbe::State::learn(const ProbePlan& plan) {
  for (const ProbeSite& site : plan.sites) {
    const double hit = site.emulated ? cost.emulated_ns : cost.stepped_ns;
    // Of two libraries that differ, the dearer one.
    if (hit < hit_ns[site.call]) continue;
    hit_ns[site.call] = hit;
    loaded.before_ns[site.call] = static_cast<__u32>(cost.hold_ns / 2);
    loaded.after_ns[site.call] =
        static_cast<__u32>(site.emulated ? cost.hold_ns / 2
                                         : std::max(0.0, cost.stepped_ns - cost.hold_ns / 2));
  }
}

PthreadProbe::PthreadProbe(std::unique_ptr<State> state) : state_(std::move(state)) {}
PthreadProbe::PthreadProbe(PthreadProbe&&) noexcept = default;

PthreadProbe::~PthreadProbe() {
  if (state_) state_->futex.note_wake_ups(false);
}

Result<PthreadProbe> PthreadProbe::open(FutexProbe& futex, uint32_t stack_rate) {
  auto loaded = load_variant(futex, stack_rate, true);
  const bool multi = loaded && takes_multi(*loaded);
  if (!multi) loaded = load_variant(futex, stack_rate, false);
  if (!loaded) return loaded.error();
  auto state = std::make_unique<State>(State{.futex = futex, .loaded = std::move(*loaded)});
  state->multi = multi;
  const auto map_fd = [&](const char* name) {
    return bpf_object__find_map_fd_by_name(state->loaded.object, name);
  };
  state->maps = {map_fd("pthreads"), map_fd("objects"), map_fd("hold_rows"), map_fd("orders"),
                 map_fd("pthread_cpus")};
  return PthreadProbe(std::move(state));
}

Status PthreadProbe::calibrate(FileParser& parser) {
  if (!state_->multi) return {};
  const pid_t self = ::getpid();
  const auto placed = attach(self, self, parser);
  if (!placed) return placed.error();
  begin_slice();
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  sem_t empty;
  ::sem_init(&empty, 0, 0);
  HitCost cost;
  double pair_ns = HUGE_VAL, held_ns = HUGE_VAL, step_ns = HUGE_VAL;
  uint64_t count = 0, total_ns = 0;
  // The quickest, for what else goes on here is not the probes' doing.
  for (int batch = 0; batch < kBatches; batch++) {
    uint64_t began_ns = monotonic_ns();
    for (int i = 0; i < kPairs; i++) {
      ::pthread_mutex_lock(&mutex);
      ::pthread_mutex_unlock(&mutex);
    }
    pair_ns = std::min(pair_ns, elapsed_ns(began_ns) / kPairs);
    began_ns = monotonic_ns();
    for (int i = 0; i < kSteps; i++) (void)::sem_trywait(&empty);
    step_ns = std::min(step_ns, elapsed_ns(began_ns) / kSteps);
    ls_object_key key{};
    for (const ls_object_key* at = nullptr; bpf_map_get_next_key(state_->maps.objects, at, &key) == 0;
         at = &key) {
      ls_object object;
      if (key.address != reinterpret_cast<uint64_t>(&mutex) ||
          bpf_map_lookup_elem(state_->maps.objects, &key, &object) != 0)
        continue;
      const uint64_t more = object.holds.count - count;
      if (more > 0) {
        held_ns = std::min(held_ns, static_cast<double>(object.holds.hold_total_ns - total_ns) /
                                        static_cast<double>(more));
      }
      count = object.holds.count;
      total_ns = object.holds.hold_total_ns;
      break;
    }
  }
  ::sem_destroy(&empty);
  end_slice();
  detach();
  state_->futex.note_wake_ups(false);
  const auto own = static_cast<uint32_t>(self);
  forget_process<ls_object_key>(state_->maps.objects, own, [](const ls_object_key& key) {
    return LS_PROCESS_TGID(key.process);
  });
  forget_process<ls_hold_key>(state_->maps.hold_rows, own, [](const ls_hold_key& key) {
    return LS_PROCESS_TGID(key.process);
  });
  // No other process has met a probe yet.
  forget_process<__u32>(state_->maps.threads, own, [own](__u32) { return own; });

  const auto emulated = [&](ls_call call) {
    bool all = false;
    for (const auto& [file, plan] : state_->plans) {
      if (!plan) continue;
      for (const ProbeSite& site : plan->sites) {
        if (site.call == call) all = site.emulated;
      }
    }
    return all;
  };
  if (count == 0 || !emulated(LS_CALL_MUTEX_LOCK) || !emulated(LS_CALL_MUTEX_UNLOCK)) return {};
  cost.emulated_ns = pair_ns / 2;
  cost.hold_ns = std::min(held_ns, pair_ns);
  cost.stepped_ns = emulated(LS_CALL_SEM_TRYWAIT) ? cost.emulated_ns * 12 : step_ns;
  spdlog::debug("a probe hit costs {:.0f} ns, {:.0f} where it has to be stepped; {:.0f} ns stand in a hold",
                cost.emulated_ns, cost.stepped_ns, cost.hold_ns);
  state_->cost = cost;
  state_->hit_ns = {};
  for (const auto& [file, plan] : state_->plans) {
    if (plan) state_->learn(*plan);
  }
  state_->calibration_ns = spent_ns();
  return {};
}

std::array<uint64_t, LS_CALLS> PthreadProbe::hits() const {
  std::array<uint64_t, LS_CALLS> hits{};
  std::vector<ls_pthread_cpu> cpus(static_cast<size_t>(std::max(1, libbpf_num_possible_cpus())));
  const __u32 zero = 0;
  if (bpf_map_lookup_elem(state_->maps.cpus, &zero, cpus.data()) != 0) return hits;
  for (const ls_pthread_cpu& cpu : cpus) {
    for (size_t call = 0; call < hits.size(); call++) hits[call] += cpu.hits[call];
  }
  return hits;
}

double PthreadProbe::spent_ns() const {
  const auto all = hits();
  double ns = -state_->calibration_ns;
  for (size_t call = 0; call < all.size(); call++) {
    ns += static_cast<double>(all[call]) * state_->hit_ns[call];
  }
  return ns;
}

const PthreadMaps& PthreadProbe::maps() const { return state_->maps; }
bool PthreadProbe::fast() const { return state_->multi; }

Result<bool> PthreadProbe::attach(pid_t pid, pid_t model, FileParser& parser) {
  const auto maps = read_maps(model);
  if (!maps) return maps.error();
  const std::vector<Mapping> libraries = pthread_libraries(*maps);
  if (libraries.empty()) return false;
  for (const Mapping& mapping : libraries) {
    auto file = open_mapped_file(model, mapping);
    if (!file) return file.error();
    struct stat info {};
    ::fstat(file->get(), &info);
    const State::File key(info.st_dev, info.st_ino, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    std::vector<Uprobes>& here = state_->probes[{pid, key}];
    if (!here.empty()) continue;
    auto plan = state_->plans.find(key);
    if (plan == state_->plans.end()) {
      plan = state_->plans.emplace(key, parser.probe_plan(file->get())).first;
    }
    if (!plan->second) return failed(mapping.path + ": " + plan->second.error().message);
    const ProbePlan& sites = *plan->second;
    state_->learn(sites);
    const std::string path = "/proc/self/fd/" + std::to_string(file->get());
    std::vector<UprobePoint> points;
    for (const ProbeSite& site : sites.sites) {
      // musl's sem_timedwait, of which sem_wait is made, is made of this one.
      if (sites.libc == Libc::Musl && site.call == LS_CALL_SEM_TRYWAIT) continue;
      points.push_back({site.file_offset, static_cast<uint64_t>(LS_SITE(
                                              site.call, static_cast<uint32_t>(sites.libc),
                                              site.outcome_in_zero_flag ? 1u : 0u))});
    }
    bpf_object* object = state_->loaded.object;
    if (state_->loaded.modern) {
      bpf_program* program = bpf_object__find_program_by_name(object, "pthread_call");
      auto placed = state_->multi
                        ? Uprobes::attach_multi(bpf_program__fd(program), pid, path, points)
                        : Uprobes::attach_each(program, pid, path, points, true);
      if (!placed) return placed.error();
      here.push_back(std::move(*placed));
      continue;
    }
    if (sites.libc != Libc::Glibc) return failed("this kernel is too old for " + mapping.path);
    for (const UprobePoint& point : points) {
      const std::string name = "pthread_call_" + std::to_string(LS_SITE_CALL(point.cookie));
      auto placed = Uprobes::attach_each(bpf_object__find_program_by_name(object, name.c_str()), pid,
                                         path, {&point, 1}, false);
      if (!placed) return placed.error();
      here.push_back(std::move(*placed));
    }
  }
  return true;
}

void PthreadProbe::mark_holders(bool on) { *state_->loaded.mark_holders = on; }

uint64_t PthreadProbe::measured_run_ns() const { return run_time_ns(state_->loaded.object); }

void PthreadProbe::detach() { state_->probes.clear(); }

uint64_t PthreadProbe::begin_slice() {
  const Loaded& loaded = state_->loaded;
  const uint64_t now = monotonic_ns();
  *loaded.slice = *loaded.slice + 1;
  *loaded.slice_start_ns = now;
  *loaded.slice_stop_ns = UINT64_MAX;
  // The way out of a system call is about as long as that out of a probe.
  state_->futex.note_wake_ups(true, static_cast<uint32_t>(state_->cost.hold_ns / 2));
  return now;
}

uint32_t PthreadProbe::slice() const { return *state_->loaded.slice; }

uint64_t PthreadProbe::end_slice() {
  const uint64_t now = monotonic_ns();
  *state_->loaded.slice_stop_ns = now;
  return now;
}

}  // namespace lockscope
