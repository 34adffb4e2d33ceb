#include "export/flame_color.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>

namespace lockscope {
namespace {

struct Hsl {
  double hue;         // degrees
  double saturation;  // 0..1
  double lightness;   // 0..1
};

// [palette][kind]. Lightness stays above 0.66, which with black text keeps the
// contrast above 7:1 (WCAG AAA) for each of these hues.
constexpr Hsl kColors[4][kFrameKinds] = {
    // Program, Library, System, Kernel, Generated, Unresolved
    {{212, .80, .74},
     {194, .62, .77},
     {226, .55, .84},
     {262, .58, .82},
     {172, .45, .74},
     {212, .10, .85}},
    {{12, .88, .73},
     {30, .92, .72},
     {44, .85, .75},
     {338, .70, .82},
     {58, .60, .72},
     {24, .12, .85}},
    {{128, .45, .70},
     {92, .48, .72},
     {70, .48, .76},
     {168, .42, .72},
     {50, .60, .76},
     {120, .08, .85}},
    {{220, .07, .77},
     {220, .06, .83},
     {220, .05, .88},
     {220, .16, .74},
     {40, .10, .80},
     {220, .03, .88}},
};

const Hsl& base_color(FlamePalette palette, FrameKind kind) {
  return kColors[static_cast<size_t>(palette) % 4][static_cast<size_t>(kind)];
}

// https://www.w3.org/TR/css-color-4/#hsl-to-rgb
std::string to_hex(const Hsl& color) {
  const auto channel = [&](double n) {
    const double k = std::fmod(n + color.hue / 30, 12);
    const double chroma = color.saturation * std::min(color.lightness, 1 - color.lightness);
    const double level = color.lightness - chroma * std::max(-1.0, std::min({k - 3, 9 - k, 1.0}));
    return static_cast<int>(std::lround(std::clamp(level, 0.0, 1.0) * 255));
  };
  return fmt::format("#{:02x}{:02x}{:02x}", channel(0), channel(8), channel(4));
}

// FNV-1a: std::hash may differ between builds, and the colours must not.
uint32_t hash(std::string_view text) {
  uint32_t value = 2166136261u;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 16777619u;
  return value ^ value >> 15;
}

struct SplitFrame {
  std::string_view function;
  std::string_view module;  // without brackets; empty when the frame has none
};

SplitFrame split(std::string_view frame) {
  const size_t open = frame.rfind(" [");
  if (open == std::string_view::npos || !frame.ends_with(']')) return {frame, {}};
  std::string_view module = frame.substr(open + 2, frame.size() - open - 3);
  if (module.starts_with('[') && module.ends_with(']')) {  // " [[vdso]]"
    module = module.substr(1, module.size() - 2);
  }
  return {frame.substr(0, open), module};
}

// "module+0x1a2b", a bare address, or a placeholder such as "[unknown]".
bool is_unresolved(std::string_view function) {
  if (function.starts_with('[') && function.ends_with(']')) return true;
  const size_t hex = function.rfind("0x");
  if (hex == std::string_view::npos || (hex != 0 && function[hex - 1] != '+')) return false;
  return function.find_first_not_of("0123456789abcdefABCDEF", hex + 2) == std::string_view::npos;
}

bool is_runtime(std::string_view module) {
  constexpr std::string_view kRuntime[] = {
      "libc.so", "libc-",    "libpthread", "libm.so",   "libm-",      "libdl",   "librt",
      "ld-",     "libgcc_s", "libstdc++",  "libc++",    "linux-vdso", "vdso",    "libatomic",
      "ld.so",   "libnss_",  "libresolv",  "libc.musl", "linux-gate", "vsyscall"};
  return std::any_of(std::begin(kRuntime), std::end(kRuntime),
                     [&](std::string_view prefix) { return module.starts_with(prefix); });
}

}  // namespace

FrameKind frame_kind(std::string_view frame) {
  const auto [function, module] = split(frame);
  if (is_unresolved(function)) return FrameKind::Unresolved;
  if (module.empty()) return FrameKind::Program;
  if (module == "k" || module.starts_with("kernel") || module.starts_with("vmlinux") ||
      module.ends_with(".ko")) {
    return FrameKind::Kernel;
  }
  if (module == "jit" || module == "anon" || module == "//anon" || module.starts_with("perf-")) {
    return FrameKind::Generated;
  }
  if (module == "unknown") return FrameKind::Unresolved;
  if (is_runtime(module)) return FrameKind::System;
  if (module.find(".so") != std::string_view::npos) return FrameKind::Library;
  return FrameKind::Program;
}

std::string_view frame_kind_label(FrameKind kind) {
  constexpr std::string_view kLabels[kFrameKinds] = {"program", "library",        "C/C++ runtime",
                                                     "kernel",  "generated code", "no symbol"};
  return kLabels[static_cast<size_t>(kind)];
}

std::string kind_color(FlamePalette palette, FrameKind kind) {
  return to_hex(base_color(palette, kind));
}

std::string frame_color(FlamePalette palette, std::string_view frame) {
  Hsl color = base_color(palette, frame_kind(frame));
  const uint32_t seed = hash(split(frame).function);
  color.hue += static_cast<double>(seed % 13) - 6;                       // +-6 degrees
  color.lightness += (static_cast<double>(seed / 13 % 9) - 4) * 0.0085;  // +-0.034
  if (color.hue < 0) color.hue += 360;
  return to_hex(color);
}

}  // namespace lockscope
