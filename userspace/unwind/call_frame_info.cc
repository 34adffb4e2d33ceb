#include "unwind/call_frame_info.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "unwind/byte_cursor.h"

namespace lockscope {
namespace {

// DW_EH_PE_*: the low half is the format, the high one what it is relative to.
enum : uint8_t {
  kFormatAbsolute = 0x00,
  kFormatUleb = 0x01,
  kFormatU2 = 0x02,
  kFormatU4 = 0x03,
  kFormatU8 = 0x04,
  kFormatSleb = 0x09,
  kFormatS2 = 0x0a,
  kFormatS4 = 0x0b,
  kFormatS8 = 0x0c,
  kRelativeMask = 0x70,
  kRelativeToPc = 0x10,
};

constexpr size_t kMaxCommonProgram = 256;

std::optional<uint64_t> take_number(ByteCursor& cursor, uint8_t encoding) {
  switch (encoding & 0x0f) {
    case kFormatAbsolute:
    case kFormatU8:
    case kFormatS8: return cursor.u64();
    case kFormatUleb: return cursor.uleb();
    case kFormatU2: return cursor.u16();
    case kFormatU4: return cursor.u32();
    case kFormatSleb: return static_cast<uint64_t>(cursor.sleb());
    case kFormatS2: return static_cast<uint64_t>(int64_t{static_cast<int16_t>(cursor.u16())});
    case kFormatS4: return static_cast<uint64_t>(int64_t{static_cast<int32_t>(cursor.u32())});
    default: return {};
  }
}

class SectionParser {
 public:
  SectionParser(const ElfSection& section, CfiKind kind)
      : bytes_(section.bytes), address_(section.address), kind_(kind) {}

  CallFrameInfo parse() {
    ByteCursor cursor(bytes_);
    while (!cursor.at_end() && take_entry(cursor)) {
    }
    sort();
    return std::move(info_);
  }

 private:
  bool take_entry(ByteCursor& cursor) {
    const size_t start = cursor.position();
    uint64_t length = cursor.u32();
    const bool wide = length == 0xffffffff;
    if (wide) length = cursor.u64();
    // .eh_frame ends with a zero; linkers leave some in the middle, too, where
    // they join the frames of crtend.o: harmless to read on.
    if (length == 0) return cursor.ok();
    const size_t id_at = cursor.position();
    const auto entry = cursor.block(length);
    if (!cursor.ok()) return false;
    ByteCursor body(entry);
    const uint64_t id = wide && kind_ == CfiKind::DebugFrame ? body.u64() : body.u32();
    if (is_common(id, wide)) {
      common_at(start);
      return true;
    }
    const uint64_t common_start = kind_ == CfiKind::EhFrame ? id_at - id : id;
    if (kind_ == CfiKind::EhFrame && id > id_at) return true;
    if (const auto common = common_at(common_start)) take_range(body, entry, id_at, *common);
    return true;
  }

  bool is_common(uint64_t id, bool wide) const {
    if (kind_ == CfiKind::EhFrame) return id == 0;
    return id == (wide ? ~uint64_t{0} : 0xffffffff);
  }

  /// The index of the common entry at `start`, read when first asked for.
  std::optional<uint32_t> common_at(uint64_t start) {
    if (const auto known = known_.find(start); known != known_.end()) return known->second;
    ByteCursor cursor(bytes_, start);
    uint64_t length = cursor.u32();
    const bool wide = length == 0xffffffff;
    if (wide) length = cursor.u64();
    const auto entry = cursor.block(length);
    if (!cursor.ok() || length == 0) return {};
    ByteCursor body(entry);
    const uint64_t id = wide && kind_ == CfiKind::DebugFrame ? body.u64() : body.u32();
    if (!is_common(id, wide)) return {};
    const uint32_t index = static_cast<uint32_t>(info_.commons.size());
    info_.commons.push_back(read_common(body, entry));
    known_.emplace(start, index);
    return index;
  }

  CfiCommon read_common(ByteCursor& body, std::span<const uint8_t> entry) const {
    CfiCommon common;
    const uint8_t version = body.u8();
    std::string_view augmentation(reinterpret_cast<const char*>(entry.data()) + body.position(),
                                  entry.size() - body.position());
    const size_t length = augmentation.find('\0');
    if (length == augmentation.npos) return common;
    augmentation = augmentation.substr(0, length);
    body.block(length + 1);
    if (version == 4 && (body.u8() != 8 || body.u8() != 0)) return common;  // 64 bits, flat
    if (version != 1 && version != 3 && version != 4) return common;
    common.code_align = body.uleb();
    common.data_align = body.sleb();
    const uint64_t return_column = version == 1 ? body.u8() : body.uleb();
    if (!augmentation.empty() && !read_augmentation(body, augmentation, common)) return common;
    common.program = entry.subspan(body.position());
    // The return address is column 16 on x86-64 (psABI, figure 3.36).
    // The program is run again for every range: 10 bytes are usual, and without
    // a limit a hostile file would make us run megabytes a million times.
    common.usable = body.ok() && return_column == 16 && common.code_align != 0 &&
                    common.program.size() <= kMaxCommonProgram;
    return common;
  }

  static bool read_augmentation(ByteCursor& body, std::string_view text, CfiCommon& common) {
    if (text[0] != 'z') return false;
    common.augmented = true;
    ByteCursor data(body.block(body.uleb()));
    for (const char c : text.substr(1)) {
      switch (c) {
        case 'R': common.pointer_encoding = data.u8(); break;
        case 'L': data.u8(); break;
        case 'P': {
          const uint8_t encoding = data.u8();
          if ((encoding & kRelativeMask) == 0x50 || !take_number(data, encoding)) return false;
          break;
        }
        case 'S': common.signal_frame = true; break;
        default: return data.ok();  // what follows is unknown, its size is not
      }
    }
    return data.ok();
  }

  void take_range(ByteCursor& body, std::span<const uint8_t> entry, size_t entry_at,
                  uint32_t index) {
    const CfiCommon& common = info_.commons[index];
    const uint8_t encoding = common.pointer_encoding;
    const uint64_t here = address_ + entry_at + body.position();
    const auto start = take_number(body, encoding);
    const auto size = take_number(body, encoding & 0x0f);
    const uint8_t relative = encoding & ~uint8_t{0x0f};
    if (!start || !size || (relative != 0 && relative != kRelativeToPc)) return;
    CfiRange range;
    range.start = *start + (relative == kRelativeToPc ? here : 0);
    range.end = range.start + *size;
    range.common = index;
    if (common.augmented) body.block(body.uleb());
    if (!body.ok() || range.end <= range.start) return;
    // Functions that the linker dropped stay in .debug_frame with address 0.
    if (range.start == 0) return;
    range.program = entry.subspan(body.position());
    info_.ranges.push_back(range);
  }

  void sort() {
    auto& ranges = info_.ranges;
    std::stable_sort(ranges.begin(), ranges.end(),
                     [](const CfiRange& a, const CfiRange& b) { return a.start < b.start; });
    uint64_t covered = 0;
    std::erase_if(ranges, [&](const CfiRange& range) {
      if (range.start < covered) return true;
      covered = range.end;
      return false;
    });
  }

  std::span<const uint8_t> bytes_;
  uint64_t address_;
  CfiKind kind_;
  CallFrameInfo info_;
  std::unordered_map<uint64_t, uint32_t> known_;
};

}  // namespace

CallFrameInfo parse_call_frame_info(const ElfSection& section, CfiKind kind) {
  return SectionParser(section, kind).parse();
}

}  // namespace lockscope
