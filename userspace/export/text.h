#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lockscope {

/// Text that is safe to show and legal in XML, from bytes the traced process
/// chose: valid UTF-8 on one line, at most `max_bytes` long and then ending in
/// "…". Tabs and line ends become spaces; other control characters, invalid
/// UTF-8 and characters that reorder text become U+FFFD, so that one sees
/// something was there.
std::string clean_text(std::string_view raw, size_t max_bytes = std::string::npos);

/// Appends clean text escaped for XML, in content and in attributes alike.
void append_xml(std::string& out, std::string_view clean);

/// Columns the clean text takes in a monospace font, wide scripts counted as 2.
size_t text_columns(std::string_view clean);

/// The longest start of the clean text within `columns`, ending in ".." when it
/// was cut.
std::string truncate_columns(std::string_view clean, size_t columns);

/// 1234567 as "1,234,567".
std::string human_count(uint64_t count);

/// A value for reading: "12.3 ms" for unit "ns", "1,234" for "count", and the
/// number followed by the unit for any other.
std::string human_value(uint64_t value, std::string_view unit);

/// `part` of `total` as "12.34%"; "0.00%" when the total is 0.
std::string human_percent(uint64_t part, uint64_t total);

}  // namespace lockscope
