#include "export/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace lockscope {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr std::string_view kEllipsis = "\xE2\x80\xA6";     // U+2026

struct CodePoint {
  char32_t value;
  size_t length;  // bytes; 0 when these are not UTF-8
};

// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
CodePoint decode(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  size_t length = 0;
  char32_t value = 0;
  char32_t smallest = 0;
  if ((lead & 0xE0) == 0xC0) {
    length = 2, value = lead & 0x1F, smallest = 0x80;
  } else if ((lead & 0xF0) == 0xE0) {
    length = 3, value = lead & 0x0F, smallest = 0x800;
  } else if ((lead & 0xF8) == 0xF0) {
    length = 4, value = lead & 0x07, smallest = 0x10000;
  } else {
    return {0, 0};
  }
  if (text.size() < length) return {0, 0};
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {0, 0};
    value = value << 6 | (byte(i) & 0x3F);
  }
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  if (value < smallest || value > 0x10FFFF || surrogate) return {0, 0};
  return {value, length};
}

// Line and paragraph separators break readers that split on Unicode lines;
// bidirectional controls can make one name look like another; U+FFFE and
// U+FFFF are not allowed in XML.
bool is_unsafe(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c <= 0x9F) || c == 0x061C || c == 0x200E || c == 0x200F ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF ||
         (c & 0xFFFE) == 0xFFFE;
}

// Coarse: from Hangul up nearly all letters are two columns wide, symbols not.
size_t columns_of(char32_t c) {
  const bool symbol = (c >= 0x2000 && c < 0x2E80) || c == 0xFFFD;
  return c >= 0x1100 && !symbol ? 2 : 1;
}

}  // namespace

std::string clean_text(std::string_view raw, size_t max_bytes) {
  std::string out;
  out.reserve(std::min(raw.size(), max_bytes));
  while (!raw.empty()) {
    const auto [value, length] = decode(raw);
    std::string_view piece = raw.substr(0, length);
    if (value == '\t' || value == '\n' || value == '\r') {
      piece = " ";
    } else if (length == 0 || is_unsafe(value)) {
      piece = kReplacement;
    }
    if (out.size() + piece.size() > max_bytes) {
      while (!out.empty() && out.size() + kEllipsis.size() > max_bytes) {
        // Only whole characters: drop continuation bytes with their lead.
        while ((static_cast<unsigned char>(out.back()) & 0xC0) == 0x80) out.pop_back();
        out.pop_back();
      }
      return out.append(kEllipsis);
    }
    out.append(piece);
    raw.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

void append_xml(std::string& out, std::string_view clean) {
  for (const char c : clean) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
}

size_t text_columns(std::string_view clean) {
  size_t columns = 0;
  while (!clean.empty()) {
    const auto [value, length] = decode(clean);
    columns += columns_of(value);
    clean.remove_prefix(length == 0 ? 1 : length);
  }
  return columns;
}

std::string truncate_columns(std::string_view clean, size_t columns) {
  if (text_columns(clean) <= columns) return std::string(clean);
  if (columns < 2) return "";
  size_t used = 0;
  size_t bytes = 0;
  while (bytes < clean.size()) {
    const auto [value, length] = decode(clean.substr(bytes));
    used += columns_of(value);
    if (used > columns - 2) break;
    bytes += length == 0 ? 1 : length;
  }
  return std::string(clean.substr(0, bytes)) + "..";
}

std::string human_count(uint64_t count) {
  std::string digits = std::to_string(count);
  for (size_t at = digits.size(); at > 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string human_value(uint64_t value, std::string_view unit) {
  if (unit == "count") return human_count(value);
  if (unit != "ns") return fmt::format("{} {}", human_count(value), clean_text(unit, 32));
  if (value < 1000) return fmt::format("{} ns", value);
  constexpr std::string_view kUnits[] = {"µs", "ms", "s"};
  double scaled = static_cast<double>(value) / 1e3;
  size_t step = 0;
  // Three significant digits: more would pretend to a precision not measured.
  // The limits are where rounding would add one.
  for (; scaled >= 999.5 && step + 1 < std::size(kUnits); ++step) scaled /= 1e3;
  const int decimals = scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f} {}", scaled, decimals, kUnits[step]);
}

std::string human_percent(uint64_t part, uint64_t total) {
  const double share = total == 0 ? 0 : static_cast<double>(part) / static_cast<double>(total);
  return fmt::format("{:.2f}%", share * 100);
}

}  // namespace lockscope
