#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "events.h"

namespace lockscope {

/// Durations by powers of two: slot i counts those in [2^i, 2^(i+1)) ns.
struct Histogram {
  std::array<uint64_t, LS_HIST_SLOTS> slots{};

  void add(const Histogram& other) {
    for (size_t i = 0; i < slots.size(); i++) slots[i] += other.slots[i];
  }

  uint64_t count() const {
    uint64_t total = 0;
    for (uint64_t slot : slots) total += slot;
    return total;
  }

  /// The duration in ns below which a share `p` (0..1) of them lies, straight
  /// between the bounds of its slot and never above `max_ns`; 0 if there are
  /// none. Off by less than a factor of two.
  uint64_t percentile(double p, uint64_t max_ns) const {
    const uint64_t total = count();
    if (total == 0) return 0;
    const double rank = p * static_cast<double>(total);
    double below = 0;
    for (size_t i = 0; i < slots.size(); i++) {
      const double here = static_cast<double>(slots[i]);
      if (here > 0 && below + here >= rank) {
        const double low = std::ldexp(1.0, static_cast<int>(i));
        const double value = low + low * (rank - below) / here;
        return value < static_cast<double>(max_ns) ? static_cast<uint64_t>(value) : max_ns;
      }
      below += here;
    }
    return max_ns;
  }
};

}  // namespace lockscope
