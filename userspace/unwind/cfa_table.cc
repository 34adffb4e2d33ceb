#include "unwind/cfa_table.h"

#include <algorithm>
#include <bit>
#include <unordered_map>

#include "unwind/call_frame_info.h"
#include "unwind/elf_code.h"
#include "unwind/go_frames.h"

namespace lockscope {
namespace {

// Functions are aligned to 16 bytes: shorter gaps are padding, never executed.
// Leaving out their rows halves the table, as most functions end with the rule
// that the next begins with.
constexpr uint64_t kPaddingBytes = 16;

// Every file has a rule for "unsupported", so that there is always one to fall
// back on. 992 libraries have 3,665 different rules together; a file with more
// than this means harm (the kernel's table of rules is shared by all).
constexpr size_t kMaxRulesPerFile = 2048;

constexpr ls_unwind_rule kNone{LS_CFA_NONE, 0, 0, 0};
constexpr ls_unwind_rule kUnsupported{LS_CFA_UNSUPPORTED, 0, 0, 0};
constexpr ls_unwind_rule kFramePointer{LS_CFA_FP, 0, 0, 0};

/// Numbers the rules of one file.
class RuleNumbers {
 public:
  RuleNumbers() { number(kUnsupported); }

  uint16_t number(ls_unwind_rule rule) {
    const uint64_t bits = std::bit_cast<uint64_t>(rule);
    if (bits == last_bits_ && !rules_.empty()) return last_;
    last_bits_ = bits;
    if (const auto known = numbers_.find(bits); known != numbers_.end())
      return last_ = known->second;
    if (rules_.size() >= kMaxRulesPerFile) return last_ = 0;
    last_ = static_cast<uint16_t>(rules_.size());
    numbers_.emplace(bits, last_);
    rules_.push_back(rule);
    return last_;
  }

  std::vector<ls_unwind_rule> take() { return std::move(rules_); }

 private:
  std::vector<ls_unwind_rule> rules_;
  std::unordered_map<uint64_t, uint16_t> numbers_;
  uint64_t last_bits_ = 0;
  uint16_t last_ = 0;
};

void append(std::vector<CfaRow>& rows, uint32_t offset, uint16_t rule) {
  if (!rows.empty()) {
    if (rows.back().rule == rule) return;
    if (rows.back().offset == offset) {
      rows.back().rule = rule;
      // It may now say the same as the one before.
      if (rows.size() > 1 && rows[rows.size() - 2].rule == rule) rows.pop_back();
      return;
    }
  }
  rows.push_back({offset, rule});
}

CfaSegment segment_of(const CodeSegment& code) {
  // The kernel maps whole pages of the file.
  const uint64_t slack = code.address & 4095;
  CfaSegment segment;
  segment.address = code.address - slack;
  segment.file_offset = code.file_offset >= slack ? code.file_offset - slack : 0;
  segment.size = (code.file_size + slack + 4095) & ~uint64_t{4095};
  return segment;
}

/// Fills a segment's rows from its start on.
class SegmentRows {
 public:
  SegmentRows(CfaSegment& segment, RuleNumbers& numbers, ls_unwind_rule elsewhere)
      : segment_(segment),
        numbers_(numbers),
        elsewhere_(elsewhere),
        covered_(segment.address),
        end_(segment.address + segment.size) {
    add(segment.address, elsewhere);
  }

  void add_call_frame_info(const CallFrameInfo& info, uint64_t from, uint64_t to) {
    to = std::min(to, end_);
    auto range = std::lower_bound(
        info.ranges.begin(), info.ranges.end(), std::max(from, covered_),
        [](const CfiRange& r, uint64_t address) { return r.start < address; });
    for (; range != info.ranges.end() && range->start < to; ++range) {
      if (range->end > to) continue;
      skip_to(range->start);
      run_call_frame_program(info, *range, [&](uint64_t address, ls_unwind_rule rule) {
        add(address, rule);
      });
      covered_ = range->end;
    }
  }

  void add_go(const GoFrames& go) {
    if (go.start() < covered_ || go.end() > end_) return;
    skip_to(go.start());
    go.run([&](uint64_t address, ls_unwind_rule rule) { add(address, rule); });
    covered_ = go.end();
  }

  void finish() { skip_to(end_); }

 private:
  void add(uint64_t address, ls_unwind_rule rule) {
    append(segment_.rows, static_cast<uint32_t>(address - segment_.address), numbers_.number(rule));
  }

  void skip_to(uint64_t address) {
    if (address - covered_ >= kPaddingBytes) add(covered_, elsewhere_);
  }

  CfaSegment& segment_;
  RuleNumbers& numbers_;
  ls_unwind_rule elsewhere_;
  uint64_t covered_;
  uint64_t end_;
};

}  // namespace

Result<CfaTable> build_cfa_table(const ByteSource& source) {
  auto elf = ElfCode::parse(source);
  if (!elf) return elf.error();
  const auto go_frames = GoFrames::load(source);
  const bool go = go_frames || elf->has_section(".gopclntab") ||
                  elf->has_section(".data.rel.ro.gopclntab") || elf->has_section(".go.buildinfo");
  CfiKind kind = CfiKind::EhFrame;
  auto section = elf->eh_frame();
  if (!section && !go) {
    section = elf->section(".debug_frame");
    kind = CfiKind::DebugFrame;
  }
  if (!section && !go) return section.error();
  CallFrameInfo info;
  if (section) info = parse_call_frame_info(*section, kind);

  RuleNumbers numbers;
  CfaTable table;
  for (const CodeSegment& code : elf->segments()) {
    CfaSegment segment = segment_of(code);
    if (segment.pages() > LS_UNWIND_MAX_PAGES || segment.address + segment.size < segment.address)
      continue;
    SegmentRows rows(segment, numbers, go && !go_frames ? kFramePointer : kNone);
    if (go_frames) {
      rows.add_call_frame_info(info, segment.address, go_frames->start());
      rows.add_go(*go_frames);
      rows.add_call_frame_info(info, go_frames->end(), ~uint64_t{0});
    } else {
      rows.add_call_frame_info(info, segment.address, ~uint64_t{0});
    }
    rows.finish();
    table.segments.push_back(std::move(segment));
  }
  table.rules = numbers.take();
  if (table.segments.empty()) return failed("no code");
  return table;
}

const ls_unwind_rule* find_rule(const CfaTable& table, uint64_t address) {
  for (const CfaSegment& segment : table.segments) {
    if (address < segment.address || address - segment.address >= segment.size) continue;
    const auto after = std::upper_bound(
        segment.rows.begin(), segment.rows.end(), address - segment.address,
        [](uint64_t offset, const CfaRow& row) { return offset < row.offset; });
    if (after == segment.rows.begin()) return nullptr;
    return &table.rules[std::prev(after)->rule];
  }
  return nullptr;
}

}  // namespace lockscope
