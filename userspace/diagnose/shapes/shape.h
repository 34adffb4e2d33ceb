#pragma once

#include <optional>

#include "diagnose/diagnosis.h"

namespace lockscope {

/// What a shape looks at: one site, and the capture around it.
struct ShapeContext {
  const SymbolizedCapture& capture;
  const SiteView& view;
  const Site& site;

  double seconds() const { return static_cast<double>(capture.capture.duration_ns) * 1e-9; }
  /// Waiting on the site as a multiple of the capture's time: 1 means that one
  /// thread's worth of time was lost.
  double threads_lost() const {
    const uint64_t ns = capture.capture.duration_ns;
    return ns == 0 ? 0 : static_cast<double>(site.wait_ns()) / static_cast<double>(ns);
  }
};

/// A shape of bug (or of health): nothing, if the site is not of it. One file
/// each; `site` of the finding is filled in by the caller.
using Shape = std::optional<Finding> (*)(const ShapeContext&);

std::optional<Finding> detect_idle_wait(const ShapeContext& context);
std::optional<Finding> detect_tiny_global_lock(const ShapeContext& context);
std::optional<Finding> detect_long_hold(const ShapeContext& context);

/// Tried in this order; of those that match, the most confident is taken.
inline constexpr Shape kShapes[] = {
    detect_idle_wait,
    detect_tiny_global_lock,
    detect_long_hold,
};

}  // namespace lockscope
