#include "symbolize/demangle.h"

// libiberty's header gives a prototype to basename() otherwise.
#define HAVE_DECL_BASENAME 1
#include <libiberty/demangle.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>

namespace lockscope {
namespace {

constexpr size_t kMaxMangledBytes = 4 << 10;
constexpr int kMaxAmbiguous = 8;

// Without parameters, as perf and pprof show functions: overloads count as one.
constexpr int kOptions = DMGL_NO_OPTS;

// A few bytes of mangled name can stand for gigabytes (each back reference
// doubles), libiberty's recursion limits notwithstanding, and its callback
// cannot say stop. So a full buffer leaves by longjmp: only C frames, and none
// that owns anything but the few bytes of a Rust punycode identifier, are
// skipped.
struct Output {
  jmp_buf full;
  size_t size;
  char bytes[kMaxDemangledBytes];
};

extern "C" void append_demangled(const char* text, size_t size, void* opaque) {
  auto* out = static_cast<Output*>(opaque);
  if (size == 0) return;
  if (size > kMaxDemangledBytes - out->size) std::longjmp(out->full, 1);
  std::memcpy(out->bytes + out->size, text, size);
  out->size += size;
}

// Nothing in this frame has a destructor, nor is changed after setjmp().
bool demangle_into(const char* mangled, Output* out) {
  out->size = 0;
  if (setjmp(out->full) != 0) return false;
  // Rust first: its legacy names are valid C++ names too.
  if (rust_demangle_callback(mangled, kOptions, append_demangled, out)) return true;
  out->size = 0;
  return cplus_demangle_v3_callback(mangled, kOptions, append_demangled, out) != 0;
}

// libiberty 2.40 reads a template parameter with arguments in the type of a
// conversion operator ("cvT_I...") in two ways, one after the other: nested,
// 26 of them take seconds and 50 for ever, without a byte of output. Real names
// have at most a few.
bool reads_in_reasonable_time(std::string_view mangled) {
  size_t at = mangled.find("cv");
  if (at == std::string_view::npos) return true;
  int ambiguous = 0;
  while ((at = mangled.find('T', at)) != std::string_view::npos) {
    ++at;
    const size_t end = mangled.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", at);
    if (end == std::string_view::npos) break;
    if (mangled[end] == '_' && mangled.substr(end + 1).starts_with("I")) ++ambiguous;
  }
  return ambiguous <= kMaxAmbiguous;
}

// The length of the well-formed UTF-8 sequence at the start of `text`, 0 if
// there is none (Unicode 15, table 3-7).
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto tail = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return tail(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    if (lead == 0xe0 && byte(1) < 0xa0) return 0;  // overlong
    if (lead == 0xed && byte(1) > 0x9f) return 0;  // surrogate
    return tail(1) && tail(2) ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    if (lead == 0xf0 && byte(1) < 0x90) return 0;  // overlong
    if (lead == 0xf4 && byte(1) > 0x8f) return 0;  // beyond U+10FFFF
    return tail(1) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

bool is_control(std::string_view sequence) {
  const auto first = static_cast<unsigned char>(sequence[0]);
  if (sequence.size() == 1) return first < 0x20 || first == 0x7f;
  // U+0080 to U+009F: terminals obey them as they do escapes.
  if (sequence.size() == 2) return first == 0xc2 && static_cast<unsigned char>(sequence[1]) < 0xa0;
  // U+2028, U+2029 (line ends), U+202A to U+202E and U+2066 to U+2069 (they
  // reverse what follows).
  if (sequence.size() == 3 && first == 0xe2) {
    const auto second = static_cast<unsigned char>(sequence[1]);
    const auto third = static_cast<unsigned char>(sequence[2]);
    return (second == 0x80 && third >= 0xa8 && third <= 0xae) ||
           (second == 0x81 && third >= 0xa6 && third <= 0xa9);
  }
  return false;
}

}  // namespace

std::string sanitize(std::string_view text, size_t max_bytes) {
  std::string clean;
  clean.reserve(std::min(text.size(), max_bytes));
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (clean.size() + std::max<size_t>(length, 1) > max_bytes) return clean + "...";
    const std::string_view sequence = text.substr(0, std::max<size_t>(length, 1));
    if (length == 0 || is_control(sequence)) {
      clean += '?';
    } else {
      clean += sequence;
    }
    text.remove_prefix(sequence.size());
  }
  return clean;
}

std::string demangle(std::string_view mangled) {
  const bool may_be_mangled =
      mangled.starts_with("_Z") || mangled.starts_with("_R") || mangled.starts_with("_GLOBAL_");
  if (!may_be_mangled || mangled.size() > kMaxMangledBytes) return sanitize(mangled);
  if (!reads_in_reasonable_time(mangled)) return sanitize(mangled);
  const std::string name(mangled);
  thread_local Output out;  // too large for a stack that may be a small one
  if (!demangle_into(name.c_str(), &out) || out.size == 0) return sanitize(mangled);
  return sanitize({out.bytes, out.size}, kMaxDemangledBytes);
}

}  // namespace lockscope
