#pragma once

#include <cstdint>
#include <string>

namespace lockscope {

/// "734 ns", "20.1 ms", "3.42 s": three significant digits.
std::string format_ns(double ns);

/// "1,234,567".
std::string format_count(uint64_t count);

/// A share of 0..1 as "12.3 %".
std::string format_percent(double share);

/// Text of a traced process, fit for a terminal: control characters and what
/// is not UTF-8 replaced by '?'.
std::string printable(const std::string& text);

}  // namespace lockscope
