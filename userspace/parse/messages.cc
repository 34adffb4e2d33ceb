#include "parse/messages.h"

#include <algorithm>
#include <optional>
#include <type_traits>

#include "symbolize/demangle.h"
#include "unwind/byte_cursor.h"

namespace lockscope {
namespace {

constexpr size_t kMaxErrorBytes = 200;
constexpr size_t kMaxBuildIdDigits = 128;
constexpr size_t kMaxFileNameBytes = 255;
constexpr size_t kMaxSegments = 4096;
constexpr size_t kMaxProbeTextBytes = 200;
constexpr size_t kMaxProbes = 256;  // of 42 functions, in a few versions
constexpr size_t kMaxFramesAtOnce = 80;                   // 64 inlined ones, and some
constexpr size_t kMaxNameBytes = kMaxDemangledBytes + 3;  // "..."

enum class Verdict : uint8_t { Value = 0, Failed = 1 };

class Writer {
 public:
  template <class T>
  Writer& put(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Writer& put(const std::string& text) {
    put(static_cast<uint32_t>(text.size()));
    bytes_ += text;
    return *this;
  }
  template <class T>
  Writer& put_count(const T& list) {
    return put(static_cast<uint32_t>(list.size()));
  }
  void reserve(size_t bytes) { bytes_.reserve(bytes); }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

Writer value() { return std::move(Writer().put(Verdict::Value)); }

class Reader {
 public:
  explicit Reader(std::string_view bytes)
      : size_(bytes.size()),
        cursor_({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}) {}

  template <class T>
  T take() {
    return cursor_.take<T>();
  }
  bool flag() { return take<uint8_t>() != 0; }

  std::string text(size_t max_bytes) {
    const auto size = take<uint32_t>();
    if (size > max_bytes) return fail(), std::string();
    const auto block = cursor_.block(size);
    return {block.begin(), block.end()};
  }

  /// How many entries follow; no more than the bytes that are left can hold.
  size_t count(size_t max, size_t entry_bytes) {
    const auto n = take<uint32_t>();
    if (n > max || n > left() / entry_bytes) return fail(), 0;
    return n;
  }

  bool ok() const { return ok_ && cursor_.ok(); }
  /// Whether all of it was read, and made sense.
  bool done() const { return ok() && left() == 0; }
  void fail() { ok_ = false; }

 private:
  size_t left() const { return size_ - cursor_.position(); }

  size_t size_;
  ByteCursor cursor_;
  bool ok_ = true;
};

// The reason why there is no value, if that is what the reply is.
std::optional<Error> read_failure(Reader& reader) {
  const auto verdict = reader.take<Verdict>();
  if (verdict == Verdict::Failed) {
    Error error = failed(sanitize(reader.text(kMaxErrorBytes)));
    if (reader.done()) return error;
  }
  if (verdict != Verdict::Value) reader.fail();
  return std::nullopt;
}

bool is_hex(const std::string& text) {
  return text.find_first_not_of("0123456789abcdef") == text.npos && text.size() % 2 == 0;
}

bool is_file_name(const std::string& text) {
  return text.find('/') == text.npos && text.find('\0') == text.npos && text != "." && text != "..";
}

constexpr size_t kRowBytes = sizeof(uint32_t) + sizeof(uint16_t);

void read_rows(Reader& reader, size_t rules, CfaSegment& segment) {
  const size_t n = reader.count(kMaxReplyBytes, kRowBytes);
  segment.rows.reserve(n);
  for (size_t i = 0; i < n; ++i) {
    const auto offset = reader.take<uint32_t>();
    const auto rule = reader.take<uint16_t>();
    const bool in_order = i == 0 ? offset == 0 : offset > segment.rows.back().offset;
    if (!in_order || offset >= segment.size || rule >= rules) return reader.fail();
    segment.rows.push_back({offset, rule});
  }
  if (n == 0) reader.fail();
}

}  // namespace

std::string encode(const ParseRequest& request) {
  Writer writer;
  writer.put(request.what).put(request.has_debug_file).put(request.has_supplement);
  writer.put(request.lines).put(request.id).put_count(request.addresses);
  for (const uint64_t address : request.addresses) writer.put(address);
  return writer.take();
}

Result<ParseRequest> decode_request(std::string_view bytes) {
  Reader reader(bytes);
  ParseRequest request;
  request.what = reader.take<ParseRequest::What>();
  request.has_debug_file = reader.flag();
  request.has_supplement = reader.flag();
  request.lines = reader.flag();
  request.id = reader.take<SymbolsId>();
  request.addresses.resize(reader.count(kMaxAddresses, sizeof(uint64_t)));
  for (uint64_t& address : request.addresses) address = reader.take<uint64_t>();
  if (!reader.done()) return failed("a request that makes no sense");
  return request;
}

std::string encode(const Error& error) {
  return Writer().put(Verdict::Failed).put(error.message.substr(0, kMaxErrorBytes)).take();
}

std::string encode(const CfaTable& table) {
  Writer writer = value();
  size_t rows = 0;
  for (const CfaSegment& segment : table.segments) rows += segment.rows.size();
  writer.reserve(rows * kRowBytes + table.rules.size() * sizeof(ls_unwind_rule) + 4096);
  writer.put_count(table.rules);
  for (const ls_unwind_rule& rule : table.rules) writer.put(rule);
  writer.put_count(table.segments);
  for (const CfaSegment& segment : table.segments) {
    writer.put(segment.file_offset).put(segment.address).put(segment.size);
    writer.put_count(segment.rows);
    for (const CfaRow& row : segment.rows) writer.put(row.offset).put(row.rule);
  }
  return writer.take();
}

template <>
std::optional<Result<CfaTable>> decode_reply(std::string_view bytes) {
  Reader reader(bytes);
  if (const auto failure = read_failure(reader)) return *failure;
  CfaTable table;
  table.rules.resize(reader.count(LS_UNWIND_MAX_RULES, sizeof(ls_unwind_rule)));
  for (ls_unwind_rule& rule : table.rules) rule = reader.take<ls_unwind_rule>();
  table.segments.resize(reader.count(kMaxSegments, 3 * sizeof(uint64_t) + sizeof(uint32_t)));
  uint64_t pages = 0;
  for (CfaSegment& segment : table.segments) {
    segment.file_offset = reader.take<uint64_t>();
    segment.address = reader.take<uint64_t>();
    segment.size = reader.take<uint64_t>();
    // The kernel has room for so many in one segment: enough for a whole file.
    if (segment.size > uint64_t{LS_UNWIND_MAX_PAGES} << LS_UNWIND_PAGE_SHIFT ||
        segment.file_offset + segment.size < segment.size ||
        segment.address + segment.size < segment.size ||
        (pages += segment.pages()) > LS_UNWIND_MAX_PAGES) {
      return std::nullopt;
    }
    read_rows(reader, table.rules.size(), segment);
    if (!reader.ok()) return std::nullopt;
  }
  if (!reader.done()) return std::nullopt;
  return table;
}

std::string encode(const ElfLinks& links) {
  return value()
      .put(links.build_id)
      .put(links.debug_link)
      .put(links.debug_link_crc)
      .put(links.supplement)
      .put(links.supplement_id)
      .put(links.has_symbols)
      .put(links.has_lines)
      .take();
}

template <>
std::optional<Result<ElfLinks>> decode_reply(std::string_view bytes) {
  Reader reader(bytes);
  if (const auto failure = read_failure(reader)) return *failure;
  ElfLinks links;
  links.build_id = reader.text(kMaxBuildIdDigits);
  links.debug_link = reader.text(kMaxFileNameBytes);
  links.debug_link_crc = reader.take<uint32_t>();
  links.supplement = reader.text(kMaxFileNameBytes);
  links.supplement_id = reader.text(kMaxBuildIdDigits);
  links.has_symbols = reader.flag();
  links.has_lines = reader.flag();
  // They become parts of paths.
  if (!reader.done() || !is_hex(links.build_id) || !is_hex(links.supplement_id) ||
      !is_file_name(links.debug_link) || !is_file_name(links.supplement)) {
    return std::nullopt;
  }
  return links;
}

std::string encode(uint32_t checksum) { return value().put(checksum).take(); }

template <>
std::optional<Result<uint32_t>> decode_reply(std::string_view bytes) {
  Reader reader(bytes);
  if (const auto failure = read_failure(reader)) return *failure;
  const auto checksum = reader.take<uint32_t>();
  if (!reader.done()) return std::nullopt;
  return checksum;
}

std::string encode(Compiler compiler) { return value().put(compiler).take(); }

template <>
std::optional<Result<Compiler>> decode_reply(std::string_view bytes) {
  Reader reader(bytes);
  if (const auto failure = read_failure(reader)) return *failure;
  const auto compiler = reader.take<Compiler>();
  if (!reader.done() || compiler > Compiler::Rust) return std::nullopt;
  return compiler;
}

std::string encode(const ProbePlan& plan) {
  const auto cut = [](const std::string& text) { return text.substr(0, kMaxProbeTextBytes); };
  Writer writer = value();
  writer.put(plan.libc).put_count(plan.sites);
  for (const ProbeSite& site : plan.sites) {
    writer.put(static_cast<uint32_t>(site.call)).put(cut(site.function)).put(site.function_address).put(site.address);
    writer.put(site.file_offset).put(site.emulated).put(site.outcome_in_zero_flag);
    writer.put(cut(site.instruction)).put(cut(site.reason));
  }
  writer.put_count(plan.unprobed);
  for (const UnprobedFunction& function : plan.unprobed) {
    writer.put(cut(function.function)).put(cut(function.reason));
  }
  return writer.take();
}

template <>
std::optional<Result<ProbePlan>> decode_reply(std::string_view bytes) {
  Reader reader(bytes);
  if (const auto failure = read_failure(reader)) return *failure;
  const auto text = [&reader] { return sanitize(reader.text(kMaxProbeTextBytes)); };
  ProbePlan plan;
  plan.libc = reader.take<Libc>();
  if (plan.libc > Libc::Musl) return std::nullopt;
  plan.sites.resize(reader.count(kMaxProbes, 4 * sizeof(uint64_t)));
  for (ProbeSite& site : plan.sites) {
    const auto call = reader.take<uint32_t>();
    site.call = static_cast<ls_call>(call);
    site.function = text();
    site.function_address = reader.take<uint64_t>();
    site.address = reader.take<uint64_t>();
    site.file_offset = reader.take<uint64_t>();
    site.emulated = reader.flag();
    site.outcome_in_zero_flag = reader.flag();
    site.instruction = text();
    site.reason = text();
    if (!reader.ok() || call >= LS_CALLS) return std::nullopt;
  }
  plan.unprobed.resize(reader.count(kMaxProbes, 2 * sizeof(uint32_t)));
  for (UnprobedFunction& function : plan.unprobed) {
    function.function = text();
    function.reason = text();
  }
  if (!reader.done()) return std::nullopt;
  return plan;
}

std::string encode(const LoadedSymbols& symbols) {
  Writer writer = value();
  writer.put(symbols.id).put(symbols.table_bytes).put(symbols.count).put(symbols.has_names);
  writer.put_count(symbols.segments);
  for (const LoadedSymbols::Segment& segment : symbols.segments) writer.put(segment);
  return writer.take();
}

template <>
std::optional<Result<LoadedSymbols>> decode_reply(std::string_view bytes) {
  Reader reader(bytes);
  if (const auto failure = read_failure(reader)) return *failure;
  LoadedSymbols symbols;
  symbols.id = reader.take<SymbolsId>();
  // A sum is made of these.
  symbols.table_bytes = std::min<uint64_t>(reader.take<uint64_t>(), 1ull << 40);
  symbols.count = reader.take<uint64_t>();
  symbols.has_names = reader.flag();
  symbols.segments.resize(reader.count(kMaxSegments, sizeof(LoadedSymbols::Segment)));
  for (auto& segment : symbols.segments) segment = reader.take<LoadedSymbols::Segment>();
  if (!reader.done() || symbols.id == 0) return std::nullopt;
  return symbols;
}

std::string encode(const std::vector<Names>& names) {
  Writer writer = value();
  writer.put_count(names);
  for (const Names& here : names) {
    writer.put(here.nameless_start).put_count(here.frames);
    for (const Frame& frame : here.frames) {
      writer.put(frame.function).put(frame.file).put(frame.line).put(frame.inlined);
    }
  }
  return writer.take();
}

template <>
std::optional<Result<std::vector<Names>>> decode_reply(std::string_view bytes) {
  Reader reader(bytes);
  if (const auto failure = read_failure(reader)) return *failure;
  std::vector<Names> names(reader.count(kMaxAddresses, sizeof(uint64_t) + sizeof(uint32_t)));
  for (Names& here : names) {
    here.nameless_start = reader.take<uint64_t>();
    here.frames.resize(reader.count(kMaxFramesAtOnce, 3 * sizeof(uint32_t) + sizeof(bool)));
    for (Frame& frame : here.frames) {
      frame.function = sanitize(reader.text(kMaxNameBytes), kMaxNameBytes);
      frame.file = sanitize(reader.text(kMaxNameBytes), kMaxNameBytes);
      frame.line = reader.take<uint32_t>();
      frame.inlined = reader.flag();
    }
    if (!reader.ok()) return std::nullopt;
  }
  if (!reader.done()) return std::nullopt;
  return names;
}

std::string encode(const std::vector<NamedObject>& objects) {
  Writer writer = value();
  writer.put_count(objects);
  for (const NamedObject& object : objects) writer.put(object.name).put(object.offset);
  return writer.take();
}

template <>
std::optional<Result<std::vector<NamedObject>>> decode_reply(std::string_view bytes) {
  Reader reader(bytes);
  if (const auto failure = read_failure(reader)) return *failure;
  std::vector<NamedObject> objects(
      reader.count(kMaxAddresses, sizeof(uint32_t) + sizeof(uint64_t)));
  for (NamedObject& object : objects) {
    object.name = sanitize(reader.text(kMaxNameBytes), kMaxNameBytes);
    object.offset = reader.take<uint64_t>();
  }
  if (!reader.done()) return std::nullopt;
  return objects;
}

}  // namespace lockscope
