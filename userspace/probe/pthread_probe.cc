#include "probe/pthread_probe.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
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
};

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
  state_->futex.note_wake_ups(true);
  return now;
}

uint64_t PthreadProbe::end_slice() {
  const uint64_t now = monotonic_ns();
  *state_->loaded.slice_stop_ns = now;
  return now;
}

}  // namespace lockscope
