#include "report/flame_view.h"

#include <fmt/format.h>

#include "report/diagnosis_text.h"
#include "text/format.h"
#include "text/holder_call.h"

namespace lockscope {
namespace {

std::string frame_name(const Frame& frame) {
  if (frame.module.empty() || frame.function.starts_with(frame.module)) return frame.function;
  return frame.function + " [" + frame.module + "]";
}

class Builder {
 public:
  explicit Builder(const Diagnosis& diagnosis) : diagnosis_(diagnosis) {}

  /// `leaf`: what it did there, unless empty.
  void add(const Site& site, Index stack, uint64_t ns, uint64_t count,
           const std::string& leaf = "") {
    if (ns == 0) return;
    const Index process = stack == kNone ? site.process
                                         : diagnosis_.capture.capture.stacks[stack].process;
    FlameStack flame;
    flame.frames.push_back(process_label(diagnosis_, process));
    if (stack == kNone) {
      flame.frames.push_back("(no stack)");
    } else {
      const auto& frames = diagnosis_.capture.frames[stack];
      if (!diagnosis_.capture.whole(stack)) {
        flame.frames.push_back("(stack incomplete)");
      }
      for (auto frame = frames.rbegin(); frame != frames.rend(); ++frame) {
        flame.frames.push_back(frame_name(*frame));
      }
    }
    if (!leaf.empty()) flame.frames.push_back(leaf);
    flame.value = ns;
    flame.count = count;
    graph.stacks.push_back(std::move(flame));
  }

  FlameGraph graph;

 private:
  const Diagnosis& diagnosis_;
};

const char* title_of(FlameMetric metric) {
  switch (metric) {
    case FlameMetric::Wait: return "Waiting for locks, by who waits";
    case FlameMetric::Blame: return "Waiting for locks, by who released them";
    case FlameMetric::Hold: return "Contended holds, by who held";
    case FlameMetric::Idle: return "Idle waiting, by who waits";
    case FlameMetric::CriticalSection: return "What holders of contended locks did";
  }
  return "";
}

FlamePalette palette_of(FlameMetric metric) {
  switch (metric) {
    case FlameMetric::Wait: return FlamePalette::Wait;
    case FlameMetric::Blame: return FlamePalette::Blame;
    case FlameMetric::Hold: return FlamePalette::Hold;
    case FlameMetric::Idle: return FlamePalette::Idle;
    case FlameMetric::CriticalSection: return FlamePalette::Blame;
  }
  return FlamePalette::Wait;
}

}  // namespace

std::optional<FlameMetric> parse_flame_metric(std::string_view name) {
  if (name == "wait") return FlameMetric::Wait;
  if (name == "blame") return FlameMetric::Blame;
  if (name == "hold") return FlameMetric::Hold;
  if (name == "idle") return FlameMetric::Idle;
  if (name == "critical-section") return FlameMetric::CriticalSection;
  return {};
}

FlameGraph flame_view(const Diagnosis& diagnosis, FlameMetric metric) {
  Builder builder(diagnosis);
  for (const Site& site : diagnosis.view.sites) {
    if (site.is_lock == (metric == FlameMetric::Idle)) continue;
    switch (metric) {
      case FlameMetric::Wait:
      case FlameMetric::Idle:
        for (const StackShare& share : site.waiter_stacks) {
          builder.add(site, share.stack, share.ns, share.count);
        }
        break;
      case FlameMetric::Blame:
        for (const StackShare& share : site.holder_stacks) {
          builder.add(site, share.stack, share.ns, share.count);
        }
        // Charged to nobody: the lock was not released again.
        if (site.unreleased_ns > 0) {
          builder.add(site, kNone, static_cast<uint64_t>(site.unreleased_ns), site.in_flight);
          builder.graph.stacks.back().frames.back() = "(not released: " + site.name + ")";
        }
        break;
      case FlameMetric::Hold:
        for (const StackShare& share : site.hold_stacks) {
          builder.add(site, share.stack, share.ns, share.count);
        }
        break;
      case FlameMetric::CriticalSection:
        for (const ActivityShare& share : site.activities) {
          const std::string call = holder_call(share.call);
          builder.add(site, share.stack, share.ns, share.count,
                      call.empty() ? "" : "(blocked in " + call + ")");
        }
        if (site.split.runnable_ns > 0) {
          builder.add(site, kNone, site.split.runnable_ns, 0);
          builder.graph.stacks.back().frames.back() = "(waiting for a CPU: " + site.name + ")";
        }
        break;
    }
  }
  FlameGraph graph = std::move(builder.graph);
  graph.title = title_of(metric);
  graph.subtitle = headline(diagnosis);
  while (graph.subtitle.ends_with('\n')) graph.subtitle.pop_back();
  graph.unit = "ns";
  graph.palette = palette_of(metric);
  graph.notes.push_back(quality_line(diagnosis));
  return graph;
}

}  // namespace lockscope
