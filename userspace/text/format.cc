#include "text/format.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace lockscope {
namespace {

// Bytes of the UTF-8 sequence at `at`, 0 if there is no valid one.
size_t utf8_length(const std::string& text, size_t at) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const unsigned lead = byte(at);
  const size_t length = lead < 0x80 ? 1 : lead >= 0xc2 && lead < 0xe0 ? 2
                        : (lead & 0xf0) == 0xe0                       ? 3
                        : lead >= 0xf0 && lead < 0xf5                 ? 4
                                                                      : 0;
  for (size_t i = 1; i < length; i++) {
    if ((byte(at + i) & 0xc0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

std::string format_ns(double ns) {
  struct Unit {
    double ns;
    const char* name;
  };
  constexpr std::array<Unit, 4> kUnits = {{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}, {1, "ns"}}};
  if (ns == 0) return "0";
  for (const Unit& unit : kUnits) {
    if (std::fabs(ns) < unit.ns && unit.ns != 1) continue;
    const double value = ns / unit.ns;
    const double size = std::fabs(value);
    if (unit.ns == 1) return fmt::format("{:.0f} ns", value);
    if (size >= 99.95) return fmt::format("{:.0f} {}", value, unit.name);
    return fmt::format("{:.{}f} {}", value, size >= 9.995 ? 1 : 2, unit.name);
  }
  return "0";
}

std::string format_count(uint64_t count) {
  std::string digits = std::to_string(count);
  for (size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, ",");
  return digits;
}

std::string format_percent(double share) {
  return fmt::format("{:.{}f} %", share * 100, share >= 0.0995 ? 0 : share >= 0.00995 ? 1 : 2);
}

std::string printable(const std::string& text) {
  std::string clean;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text, at);
    const unsigned char lead = static_cast<unsigned char>(text[at]);
    // C1 controls (0x80-0x9f) are terminal commands as well.
    const bool c1 = length == 2 && lead == 0xc2 && static_cast<unsigned char>(text[at + 1]) < 0xa0;
    if (length == 0 || lead < 0x20 || lead == 0x7f || c1) {
      clean += '?';
    } else {
      clean.append(text, at, length);
    }
    at += length == 0 ? 1 : length;
  }
  return clean;
}

}  // namespace lockscope
