#include "probe/holder_probe.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/perf_event.h>
#include <spdlog/spdlog.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "holder_compat.skel.h"
#include "holder_modern.skel.h"
#include "probe/bpf_support.h"

namespace lockscope {
namespace {

struct Loaded {
  std::shared_ptr<void> skeleton;
  bpf_object* object = nullptr;
};

template <class Skeleton>
Result<Loaded> load(Skeleton* skeleton, void (*destroy)(Skeleton*), int (*do_load)(Skeleton*),
                    const FutexProbe& futex, uint32_t stack_rate) {
  if (skeleton == nullptr) {
    return unsupported(std::string("cannot open the BPF programs: ") + std::strerror(errno));
  }
  Loaded loaded;
  loaded.skeleton = std::shared_ptr<void>(
      skeleton, [destroy](void* memory) { destroy(static_cast<Skeleton*>(memory)); });
  skeleton->rodata->ls_stack_rate = stack_rate;
  skeleton->rodata->ls_hash_seed = futex.hash_seed();
  if (Status shared = share_maps(skeleton->obj, futex.object()); !shared.ok()) return shared.error();
  if (const int error = do_load(skeleton); error != 0) {
    return unsupported(std::string("cannot load the BPF programs of the holder tier: ") +
                       std::strerror(-error));
  }
  loaded.object = skeleton->obj;
  return loaded;
}

UniqueFd open_clock(int cpu) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_CPU_CLOCK;
  attr.freq = 1;
  attr.sample_freq = LS_HOLDER_SAMPLES;
  return UniqueFd(static_cast<int>(
      ::syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)));
}

}  // namespace

struct HolderProbe::State {
  Loaded loaded;
  HolderMaps maps;
  std::vector<Link> links;
  bool samples = false;
};

HolderProbe::HolderProbe(std::unique_ptr<State> state) : state_(std::move(state)) {}
HolderProbe::HolderProbe(HolderProbe&&) noexcept = default;

HolderProbe::~HolderProbe() {
  if (state_) take_down(state_->links);
}

Result<HolderProbe> HolderProbe::open(FutexProbe& futex, uint32_t stack_rate) {
  auto loaded = futex.variant() == "modern"
                    ? load(holder_modern__open(), holder_modern__destroy, holder_modern__load,
                           futex, stack_rate)
                    : load(holder_compat__open(), holder_compat__destroy, holder_compat__load,
                           futex, stack_rate);
  if (!loaded) return loaded.error();
  auto state = std::make_unique<State>();
  state->loaded = std::move(*loaded);
  bpf_object* object = state->loaded.object;
  const auto map_fd = [object](const char* name) {
    return bpf_object__find_map_fd_by_name(object, name);
  };
  state->maps = {map_fd("holders"), map_fd("splits"), map_fd("activities")};

  for (const char* name : {"holder_switch", "holder_wakeup"}) {
    bpf_program* program = bpf_object__find_program_by_name(object, name);
    Link link(bpf_program__attach(program));
    if (!link) {
      return unsupported(std::string("cannot attach ") + name + ": " + std::strerror(errno));
    }
    state->links.push_back(std::move(link));
  }
  const bpf_program* sample = bpf_object__find_program_by_name(object, "holder_sample");
  const long cpus = ::sysconf(_SC_NPROCESSORS_CONF);
  for (int cpu = 0; cpu < cpus; cpu++) {
    UniqueFd clock = open_clock(cpu);
    if (!clock) continue;  // this CPU is offline
    Link link(bpf_program__attach_perf_event(sample, clock.get()));
    if (!link) {
      spdlog::debug("no samples on CPU {}: {}", cpu, std::strerror(errno));
      continue;
    }
    clock.release();  // the link closes it
    state->links.push_back(std::move(link));
    state->samples = true;
  }
  return HolderProbe(std::move(state));
}

const HolderMaps& HolderProbe::maps() const { return state_->maps; }
bool HolderProbe::samples() const { return state_->samples; }
uint64_t HolderProbe::measured_run_ns() const { return run_time_ns(state_->loaded.object); }

}  // namespace lockscope
