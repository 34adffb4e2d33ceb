#include "probe/census_probe.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <spdlog/spdlog.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>

#include "census_compat.skel.h"
#include "census_modern.skel.h"
#include "probe/bpf_support.h"
#include "probe/futex_probe.h"

namespace lockscope {
namespace {

// A link that goes over one process where the kernel can, over all where not.
Link attach(const bpf_program* program, pid_t tgid) {
  bpf_iter_link_info info {};
  info.task.pid = static_cast<__u32>(tgid);
  LIBBPF_OPTS(bpf_iter_attach_opts, options, .link_info = &info, .link_info_len = sizeof info);
  if (Link link(bpf_program__attach_iter(program, &options)); link) return link;
  return Link(bpf_program__attach_iter(program, nullptr));
}

// A sleep makes the kernel note the time for us, by which the program tells for
// how long others have been asleep (census.bpf.c).
void note_the_time() {
  const timespec shortest{0, 1};
  ::clock_nanosleep(CLOCK_MONOTONIC, 0, &shortest, nullptr);
}

// Runs on one CPU while it lives, if it may.
class OnCpu {
 public:
  explicit OnCpu(uint32_t cpu) {
    ::sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t only;
    CPU_ZERO(&only);
    if (cpu < CPU_SETSIZE) CPU_SET(cpu, &only);
    ok_ = ::sched_setaffinity(0, sizeof only, &only) == 0;
  }
  ~OnCpu() {
    if (ok_) ::sched_setaffinity(0, sizeof before_, &before_);
  }
  OnCpu(const OnCpu&) = delete;
  OnCpu& operator=(const OnCpu&) = delete;
  bool ok() const { return ok_; }

 private:
  cpu_set_t before_{};
  bool ok_ = false;
};

// Looks at what a CPU's clock leaves out: one that a tick did not come between.
constexpr int kClockLooks = 2;
// For all CPUs; busy ones make us wait for our turn.
constexpr uint64_t kClockBudgetNs = 30'000'000;

}  // namespace

struct CensusProbe::State {
  std::shared_ptr<void> skeleton;
  const bpf_program* program = nullptr;
  volatile __u32* wanted = nullptr;
  volatile __s64* left_out = nullptr;
  std::string variant;
};

namespace {

template <class State, class Skeleton>
Result<std::unique_ptr<State>> load(Skeleton* skeleton, void (*destroy)(Skeleton*),
                                    int (*do_load)(Skeleton*), const char* variant) {
  if (skeleton == nullptr) {
    return unsupported(std::string("cannot open the BPF programs: ") + std::strerror(errno));
  }
  auto state = std::make_unique<State>();
  state->skeleton = std::shared_ptr<void>(
      skeleton, [destroy](void* memory) { destroy(static_cast<Skeleton*>(memory)); });
  if (const int error = do_load(skeleton); error != 0) {
    return unsupported(std::string("cannot load the BPF programs: ") + std::strerror(-error));
  }
  state->program = skeleton->progs.census;
  state->wanted = &skeleton->bss->ls_census_tgid;
  state->left_out = &skeleton->bss->ls_census_left_out;
  state->variant = variant;
  return state;
}

}  // namespace

CensusProbe::CensusProbe(std::unique_ptr<State> state) : state_(std::move(state)) {}
CensusProbe::CensusProbe(CensusProbe&&) noexcept = default;
CensusProbe& CensusProbe::operator=(CensusProbe&&) noexcept = default;
CensusProbe::~CensusProbe() = default;

Result<CensusProbe> CensusProbe::open() {
  if (Status kernel = prepare_bpf(); !kernel.ok()) return kernel.error();
  auto state = load<State>(census_modern__open(), census_modern__destroy, census_modern__load,
                           "modern");
  if (!state) {
    spdlog::debug("the modern programs don't load here, trying those for older kernels");
    state = load<State>(census_compat__open(), census_compat__destroy, census_compat__load,
                        "compat");
  }
  if (!state) return state.error();
  return CensusProbe(std::move(*state));
}

const std::string& CensusProbe::variant() const { return state_->variant; }

Result<std::vector<ls_census_thread>> CensusProbe::threads(pid_t tgid) {
  *state_->wanted = static_cast<__u32>(tgid);
  const Link link = attach(state_->program, tgid);
  // Over all tasks it can always be attached, whether the process is gone or not.
  if (!link) return unsupported(std::string("cannot attach census: ") + std::strerror(errno));
  note_the_time();
  const auto bytes = run_task_iterator(bpf_link__fd(link.get()));
  if (!bytes) return bytes.error();
  std::vector<ls_census_thread> threads(bytes->size() / sizeof(ls_census_thread));
  std::memcpy(threads.data(), bytes->data(), threads.size() * sizeof(ls_census_thread));
  std::sort(threads.begin(), threads.end(),
            [](const auto& a, const auto& b) { return a.tid < b.tid; });
  return threads;
}

void CensusProbe::correct_times(std::span<ls_census_thread* const> threads) {
  const uint64_t began_ns = monotonic_ns();
  std::map<uint32_t, std::optional<uint64_t>> left_out;
  for (ls_census_thread* thread : threads) {
    if (thread->asleep_ns == 0) continue;
    const auto [known, is_new] = left_out.try_emplace(thread->cpu);
    if (is_new && monotonic_ns() - began_ns < kClockBudgetNs) {
      const OnCpu here(thread->cpu);
      for (int look = 0; here.ok() && look < kClockLooks; look++) {
        if (!this->threads(::getpid())) break;
        const auto seen = static_cast<uint64_t>(std::max<int64_t>(*state_->left_out, 0));
        known->second = std::max(known->second.value_or(0), seen);
      }
    }
    thread->asleep_ns -= std::min<uint64_t>(known->second.value_or(UINT64_MAX), thread->asleep_ns);
  }
}

}  // namespace lockscope
