#pragma once

#include <optional>
#include <string_view>

#include "diagnose/diagnosis.h"
#include "export/flame.h"

namespace lockscope {

/// What a flame graph's widths mean.
enum class FlameMetric {
  Wait,   ///< time waiting for locks, by waiter's stack
  Blame,  ///< time others waited, by the stack that released the lock
  Hold,   ///< time locks were held after a wait, by releasing stack
  Idle,   ///< time waiting for work, time or a thread's end
  CriticalSection,  ///< what threads did while they held a contended lock
};

std::optional<FlameMetric> parse_flame_metric(std::string_view name);

/// The flame graph of a diagnosed capture by one metric. With stacks of
/// several processes, each stands under its own "name[pid]".
FlameGraph flame_view(const Diagnosis& diagnosis, FlameMetric metric);

}  // namespace lockscope
