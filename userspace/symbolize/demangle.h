#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lockscope {

/// A symbol's name as its programmer wrote it: C++ (Itanium ABI) without
/// parameter lists, Rust (legacy and v0) without hashes; every other name as it
/// is. The result is sanitized. Names come from traced processes: those above
/// 4 KiB, or that would expand beyond 16 KiB, stay mangled.
std::string demangle(std::string_view mangled);

/// The most bytes that demangle() gives.
inline constexpr size_t kMaxDemangledBytes = 16 << 10;

/// `text` fit to be printed: control characters and bytes that are no UTF-8
/// become '?', what is longer than `max_bytes` is cut and ends in "...".
std::string sanitize(std::string_view text, size_t max_bytes = 4 << 10);

}  // namespace lockscope
