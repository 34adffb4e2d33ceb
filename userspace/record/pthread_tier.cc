#include "record/pthread_tier.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

namespace lockscope {

Result<PthreadTier> PthreadTier::open(FutexProbe& futex, FileParser& parser, uint32_t stack_rate) {
  auto probe = PthreadProbe::open(futex, stack_rate);
  if (!probe) return probe.error();
  return PthreadTier(std::move(*probe), parser);
}

void PthreadTier::end() {
  probe_.end_slice();
  wanted_.clear();
}

void PthreadTier::expect(pid_t pid) {
  (void)probe_.attach(pid, ::getpid(), *parser_).operator bool();
}

void PthreadTier::want(pid_t pid) { wanted_.insert(pid); }

void PthreadTier::serve() {
  for (auto pid = wanted_.begin(); pid != wanted_.end();) {
    const auto placed = probe_.attach(*pid, *pid, *parser_);
    if (!placed) spdlog::warn("no probes in process {}: {}", *pid, placed.error().message);
    pid = !placed || *placed ? wanted_.erase(pid) : std::next(pid);
  }
}

}  // namespace lockscope
