#include "probe/futex_probe.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/membarrier.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "futex_compat.skel.h"
#include "futex_modern.skel.h"
#include "probe/bpf_support.h"
#include "probe/tracepoint.h"

namespace lockscope {
namespace {

// The switches of the capture, in the programs' own memory.
struct Controls {
  volatile __u64* start_ns = nullptr;
  volatile __u64* stop_ns = nullptr;
  volatile __u32* adopt_waits = nullptr;
  volatile __u32* note_wake_ups = nullptr;
  volatile __u32* mark_holders = nullptr;
  volatile __u32* wake_ns = nullptr;
};

// What one skeleton offers under names that differ by type only.
struct Loaded {
  std::shared_ptr<void> skeleton;
  bpf_object* object = nullptr;
  Controls controls;
  std::string variant;
  uint64_t hash_seed = 0;
};

// Longer than any program runs, for kernels built without membarrier(2) or
// booted with nohz_full, which refuse it.
constexpr useconds_t kNoMembarrierUs = 20000;

template <class Skeleton>
Result<Loaded> load(Skeleton* skeleton, void (*destroy)(Skeleton*), int (*do_load)(Skeleton*),
                    const char* variant, const ProbeFilter& filter, const ProbeSizes& sizes) {
  if (skeleton == nullptr) {
    return unsupported(std::string("cannot open the BPF programs: ") + std::strerror(errno));
  }
  Loaded loaded;
  loaded.skeleton = std::shared_ptr<void>(
      skeleton, [destroy](void* memory) { destroy(static_cast<Skeleton*>(memory)); });
  skeleton->rodata->ls_filter_kind = filter.kind;
  skeleton->rodata->ls_own_tgid = static_cast<__u32>(::getpid());
  skeleton->rodata->ls_follow_forks = filter.follow_forks;
  skeleton->rodata->ls_stack_rate = sizes.stack_rate;
  if (filter.pids.size() == 1 && !filter.follow_forks) {
    skeleton->rodata->ls_only_tgid = static_cast<__u32>(filter.pids.front());
  }
  if (::getrandom(const_cast<__u64*>(&skeleton->rodata->ls_hash_seed), sizeof(__u64), 0) !=
      sizeof(__u64)) {
    return failed("cannot get random numbers");
  }
  std::strncpy(const_cast<char*>(skeleton->rodata->ls_filter_comm), filter.comm.c_str(),
               sizeof skeleton->rodata->ls_filter_comm - 1);
  skeleton->bss->ls_stop_ns = 0;
  loaded.hash_seed = skeleton->rodata->ls_hash_seed;
  bpf_map__set_max_entries(skeleton->maps.pthreads, sizes.pthread_threads);
  bpf_map__set_max_entries(skeleton->maps.holders, sizes.holders);
  bpf_map__set_max_entries(skeleton->maps.splits, sizes.splits);
  const int error = do_load(skeleton);
  if (error != 0) {
    return unsupported(std::string("cannot load the BPF programs: ") + std::strerror(-error));
  }
  loaded.object = skeleton->obj;
  loaded.controls = {&skeleton->bss->ls_start_ns, &skeleton->bss->ls_stop_ns,
                     &skeleton->bss->ls_adopt_waits, &skeleton->bss->ls_note_wake_ups,
                     &skeleton->bss->ls_mark_holders, &skeleton->bss->ls_wake_ns};
  loaded.variant = variant;
  return loaded;
}

Result<Loaded> load_best(const ProbeFilter& filter, const ProbeSizes& sizes) {
  auto modern = load(futex_modern__open(), futex_modern__destroy, futex_modern__load, "modern",
                     filter, sizes);
  if (modern) return modern;
  spdlog::debug("the modern programs don't load here, trying those for older kernels");
  return load(futex_compat__open(), futex_compat__destroy, futex_compat__load, "compat", filter,
              sizes);
}

Status set_filter(bpf_object* object, const ProbeFilter& filter) {
  const int tgids = bpf_object__find_map_fd_by_name(object, "target_tgids");
  for (const pid_t pid : filter.pids) {
    const __u32 tgid = static_cast<__u32>(pid);
    const __u8 one = 1;
    if (bpf_map_update_elem(tgids, &tgid, &one, BPF_ANY) != 0) {
      return failed("too many processes to trace");
    }
  }
  if (filter.kind == LS_FILTER_CGROUP) {
    const int cgroups = bpf_object__find_map_fd_by_name(object, "target_cgroup");
    const __u32 zero = 0;
    if (bpf_map_update_elem(cgroups, &zero, &filter.cgroup_fd, BPF_ANY) != 0) {
      return failed(std::string("cannot filter by this cgroup: ") + std::strerror(errno));
    }
  }
  return {};
}

// One program serves several calls: the verifier sees it once.
constexpr std::pair<const char*, const char*> kTracepoints[] = {
    {"enter_futex", "syscalls/sys_enter_futex"},
    {"enter_futex", "syscalls/sys_enter_futex_waitv"},
    {"enter_futex_4", "syscalls/sys_enter_futex_wake"},
    {"enter_futex", "syscalls/sys_enter_futex_wait"},
    {"enter_futex_4", "syscalls/sys_enter_futex_requeue"},
    {"exit_futex", "syscalls/sys_exit_futex"},
    {"exit_futex", "syscalls/sys_exit_futex_waitv"},
    {"exit_futex", "syscalls/sys_exit_futex_wait"},
    {"exit_futex", "syscalls/sys_exit_futex_requeue"},
    {"enter_exit", "syscalls/sys_enter_exit"},
};

Error cannot_attach(const bpf_program* program) {
  return unsupported("cannot attach " + std::string(bpf_program__name(program)) + ": " +
                     std::strerror(errno));
}

}  // namespace

struct FutexProbe::State {
  Loaded loaded;
  FutexMaps maps;
  UnwindMaps unwind_maps;
  std::vector<Link> links;
  Link iterator;
};

FutexProbe::FutexProbe(std::unique_ptr<State> state) : state_(std::move(state)) {}
FutexProbe::FutexProbe(FutexProbe&&) noexcept = default;
FutexProbe& FutexProbe::operator=(FutexProbe&&) noexcept = default;

FutexProbe::~FutexProbe() {
  if (!state_) return;
  // Links before the programs they hold.
  state_->iterator.reset();
  take_down(state_->links);
}

uint64_t monotonic_ns() {
  timespec now {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const uint64_t ns = static_cast<uint64_t>(now.tv_sec) * 1000000000ull +
                      static_cast<uint64_t>(now.tv_nsec);
  return ns & ~static_cast<uint64_t>(LS_TICK_NS - 1);
}

Result<FutexProbe> FutexProbe::open(const ProbeFilter& filter, const ProbeSizes& sizes) {
  if (Status kernel = prepare_bpf(); !kernel.ok()) return kernel.error();
  auto tracefs = Tracefs::open();
  if (!tracefs) return tracefs.error();
  auto loaded = load_best(filter, sizes);
  if (!loaded) return loaded.error();

  auto state = std::make_unique<State>();
  state->loaded = std::move(*loaded);
  bpf_object* object = state->loaded.object;
  const auto map_fd = [object](const char* name) {
    return bpf_object__find_map_fd_by_name(object, name);
  };
  state->maps = {map_fd("threads"), map_fd("locks"),  map_fd("waits"),    map_fd("releases"),
                 map_fd("pairs"),   map_fd("stacks"), map_fd("cpus"), map_fd("notices")};
  state->unwind_maps = {map_fd("ls_unwind_pool"), map_fd("ls_unwind_rules"),
                        map_fd("ls_unwind_processes"), map_fd("ls_unwind_requests")};
  if (Status set = set_filter(object, filter); !set.ok()) return set.error();

  for (const auto& [name, tracepoint] : kTracepoints) {
    const auto id = tracefs->tracepoint_id(tracepoint);
    if (!id) continue;  // a system call that this kernel does not have
    auto event = open_tracepoint(*id);
    if (!event) return event.error();
    bpf_program* program = bpf_object__find_program_by_name(object, name);
    Link link(bpf_program__attach_perf_event(program, event->get()));
    if (!link) return cannot_attach(program);
    event->release();  // the link closes it
    state->links.push_back(std::move(link));
  }
  for (const char* name : {"thread_exit", "process_exec", "process_fork", "blocked_threads"}) {
    bpf_program* program = bpf_object__find_program_by_name(object, name);
    Link link(bpf_program__attach(program));
    if (!link) return cannot_attach(program);
    const bool iterator = bpf_program__type(program) == BPF_PROG_TYPE_TRACING;
    (iterator ? state->iterator : state->links.emplace_back()) = std::move(link);
  }
  return FutexProbe(std::move(state));
}

const FutexMaps& FutexProbe::maps() const { return state_->maps; }
const UnwindMaps& FutexProbe::unwind_maps() const { return state_->unwind_maps; }
const std::string& FutexProbe::variant() const { return state_->loaded.variant; }

bpf_object* FutexProbe::object() const { return state_->loaded.object; }
uint64_t FutexProbe::hash_seed() const { return state_->loaded.hash_seed; }
void FutexProbe::note_wake_ups(bool on, uint32_t later_ns) {
  *state_->loaded.controls.wake_ns = later_ns;
  *state_->loaded.controls.note_wake_ups = on;
}
void FutexProbe::mark_holders(bool on) { *state_->loaded.controls.mark_holders = on; }

uint64_t FutexProbe::start() {
  const uint64_t now = monotonic_ns();
  *state_->loaded.controls.start_ns = now;
  *state_->loaded.controls.stop_ns = UINT64_MAX;
  *state_->loaded.controls.adopt_waits = 1;
  if (auto blocked = blocked_threads(); !blocked) {
    spdlog::warn("threads that were asleep already are not seen: {}", blocked.error().message);
  }
  *state_->loaded.controls.adopt_waits = 0;
  return now;
}

uint64_t FutexProbe::stop() {
  const uint64_t now = monotonic_ns();
  *state_->loaded.controls.stop_ns = now;
  // Programs run with preemption off, so a grace period later none is under way
  // that has not seen the end: the tables are still.
  if (::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) != 0) {
    spdlog::debug("membarrier: {}", std::strerror(errno));
    ::usleep(kNoMembarrierUs);
  }
  return now;
}

Result<std::vector<ls_blocked>> FutexProbe::blocked_threads() const {
  const auto bytes = run_task_iterator(bpf_link__fd(state_->iterator.get()));
  if (!bytes) return bytes.error();
  std::vector<ls_blocked> threads(bytes->size() / sizeof(ls_blocked));
  std::memcpy(threads.data(), bytes->data(), threads.size() * sizeof(ls_blocked));
  return threads;
}

uint64_t FutexProbe::measured_run_ns() const { return run_time_ns(state_->loaded.object); }

}  // namespace lockscope
