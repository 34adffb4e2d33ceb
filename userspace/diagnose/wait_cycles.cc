#include "diagnose/wait_cycles.h"

#include <algorithm>

namespace lockscope {

std::vector<WaitCycle> find_cycles(const std::vector<Index>& waits_for) {
  constexpr Index kUnknown = kNone - 1;
  const size_t n = waits_for.size();
  std::vector<WaitCycle> cycles;
  // Where each thread's chain ends: in a cycle, by number, or nowhere.
  std::vector<Index> leads_to(n, kUnknown);
  std::vector<bool> on_path(n, false);
  for (Index start = 0; start < n; start++) {
    std::vector<Index> path;
    Index at = start;
    while (at != kNone && leads_to[at] == kUnknown && !on_path[at]) {
      on_path[at] = true;
      path.push_back(at);
      at = waits_for[at] < n ? waits_for[at] : kNone;
    }
    Index end = at == kNone ? kNone : leads_to[at];
    size_t before = path.size();  // of the path, what is no part of a new cycle
    if (at != kNone && on_path[at]) {
      end = static_cast<Index>(cycles.size());
      const auto first = std::find(path.begin(), path.end(), at);
      before = static_cast<size_t>(first - path.begin());
      WaitCycle cycle;
      cycle.threads.assign(first, path.end());
      std::rotate(cycle.threads.begin(),
                  std::min_element(cycle.threads.begin(), cycle.threads.end()),
                  cycle.threads.end());
      cycles.push_back(std::move(cycle));
    }
    for (size_t i = 0; i < path.size(); i++) {
      on_path[path[i]] = false;
      leads_to[path[i]] = end;
      if (i < before && end != kNone) cycles[end].behind.push_back(path[i]);
    }
  }
  for (WaitCycle& cycle : cycles) std::sort(cycle.behind.begin(), cycle.behind.end());
  std::sort(cycles.begin(), cycles.end(), [](const WaitCycle& a, const WaitCycle& b) {
    return a.threads.front() < b.threads.front();
  });
  return cycles;
}

}  // namespace lockscope
