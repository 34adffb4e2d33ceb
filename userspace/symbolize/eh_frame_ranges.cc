#include "symbolize/eh_frame_ranges.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>

namespace lockscope {
namespace {

constexpr uint64_t kMaxEhFrameBytes = 128 << 20;  // libLLVM-14: 5 MB
constexpr size_t kMaxRanges = 2 << 20;
constexpr uint64_t kMaxU32 = std::numeric_limits<uint32_t>::max();

// DW_EH_PE_*: how a pointer is written (LSB core specification, 10.5.1).
constexpr uint8_t kEncodingOmit = 0xff;
constexpr uint8_t kEncodingPcRelative = 0x10;
constexpr uint8_t kEncodingFormMask = 0x0f;
constexpr uint8_t kEncodingBaseMask = 0x70;
constexpr uint8_t kEncodingIndirect = 0x80;

/// Reads little-endian values one after the other; after a read past the end,
/// everything is 0 and ok() false.
class Cursor {
 public:
  Cursor(std::string_view bytes, uint64_t at, uint64_t end) : bytes_(bytes), at_(at), end_(end) {}

  bool ok() const { return ok_; }
  uint64_t position() const { return at_; }

  template <class T>
  T take() {
    T value{};
    if (sizeof(T) > end_ - at_) {
      ok_ = false;
      return value;
    }
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  void skip_leb128() {
    while (ok_ && (take<uint8_t>() & 0x80)) continue;
  }

  /// A pointer as the file has it; the caller adds what it is relative to.
  uint64_t take_pointer(uint8_t encoding) {
    switch (encoding & kEncodingFormMask) {
      case 0x00:  // absptr
      case 0x04:  // udata8
      case 0x0c:  // sdata8
        return take<uint64_t>();
      case 0x02:
        return take<uint16_t>();
      case 0x03:
        return take<uint32_t>();
      case 0x0a:
        return static_cast<uint64_t>(int64_t{take<int16_t>()});
      case 0x0b:
        return static_cast<uint64_t>(int64_t{take<int32_t>()});
      default:  // LEB128 is allowed and never used
        ok_ = false;
        return 0;
    }
  }

 private:
  std::string_view bytes_;
  uint64_t at_;
  uint64_t end_;
  bool ok_ = true;
};

// How the FDEs of the CIE at `at` write their addresses; kEncodingOmit when
// that cannot be told.
uint8_t fde_encoding(std::string_view bytes, uint64_t at) {
  if (at >= bytes.size()) return kEncodingOmit;
  Cursor cie(bytes, at, bytes.size());
  uint64_t length = cie.take<uint32_t>();
  if (length == kMaxU32) length = cie.take<uint64_t>();
  if (!cie.ok() || length > bytes.size() - cie.position()) return kEncodingOmit;
  cie = Cursor(bytes, cie.position(), cie.position() + length);
  if (cie.take<uint32_t>() != 0) return kEncodingOmit;
  const auto version = cie.take<uint8_t>();
  if (version != 1 && version != 3) return kEncodingOmit;
  char augmentation[8] = {};
  for (size_t i = 0; i < sizeof augmentation; ++i) {
    augmentation[i] = cie.take<char>();
    if (augmentation[i] == '\0') break;
  }
  if (augmentation[sizeof augmentation - 1] != '\0') return kEncodingOmit;
  if (augmentation[0] == '\0') return cie.ok() ? 0 : kEncodingOmit;
  if (augmentation[0] != 'z') return kEncodingOmit;
  cie.skip_leb128();  // code alignment
  cie.skip_leb128();  // data alignment
  if (version == 1) {
    cie.take<uint8_t>();  // return address register
  } else {
    cie.skip_leb128();
  }
  cie.skip_leb128();  // length of the augmentation data
  for (const char* c = augmentation + 1; *c != '\0'; ++c) {
    switch (*c) {
      case 'R': {
        const auto encoding = cie.take<uint8_t>();
        return cie.ok() ? encoding : kEncodingOmit;
      }
      case 'P':
        cie.take_pointer(cie.take<uint8_t>());
        break;
      case 'L':
        cie.take<uint8_t>();
        break;
      case 'S':  // signal frame
      case 'B':  // pointer authentication (ARM64)
        break;
      default:
        return kEncodingOmit;
    }
  }
  return cie.ok() ? 0 : kEncodingOmit;
}

}  // namespace

EhFrameRanges EhFrameRanges::load(const ElfFile& file) {
  EhFrameRanges result;
  result.base_ = file.base_address();
  const ElfFile::Section* section = file.find_section(".eh_frame");
  const auto bytes = file.bytes_of(section, kMaxEhFrameBytes);
  if (!bytes) return result;

  std::vector<CodeRange> stubs;
  for (const ElfFile::Section& s : file.sections()) {
    if (s.name == ".plt" || s.name == ".plt.got" || s.name == ".plt.sec") {
      stubs.push_back({s.header.sh_addr, s.header.sh_size});
    }
    if (stubs.size() == 3) break;
  }
  const auto is_stub = [&](uint64_t address) {
    return std::any_of(stubs.begin(), stubs.end(),
                       [&](const CodeRange& s) { return address - s.start < s.size; });
  };

  uint64_t known_cie = std::numeric_limits<uint64_t>::max();
  uint8_t encoding = kEncodingOmit;
  for (uint64_t at = 0; result.ranges_.size() < kMaxRanges;) {
    Cursor record(*bytes, at, bytes->size());
    uint64_t length = record.take<uint32_t>();
    if (length == kMaxU32) length = record.take<uint64_t>();
    const uint64_t id_at = record.position();
    if (!record.ok() || length < sizeof(uint32_t) || length > bytes->size() - id_at) break;
    at = id_at + length;
    record = Cursor(*bytes, id_at, at);
    const uint64_t id = record.take<uint32_t>();
    if (id == 0 || id > id_at) continue;  // a CIE, or nonsense
    if (const uint64_t cie = id_at - id; cie != known_cie) {
      known_cie = cie;
      encoding = fde_encoding(*bytes, cie);
    }
    const uint8_t base = encoding & kEncodingBaseMask;
    if (encoding == kEncodingOmit || (encoding & kEncodingIndirect) ||
        (base != 0 && base != kEncodingPcRelative)) {
      continue;
    }
    const uint64_t here = section->header.sh_addr + record.position();
    uint64_t start = record.take_pointer(encoding);
    if (base == kEncodingPcRelative) start += here;
    // Lengths are written in the same form, without a base and a sign.
    const uint64_t form = encoding & kEncodingFormMask;
    uint64_t size = record.take_pointer(encoding);
    if (form == 0x0b || form == 0x03) size &= kMaxU32;
    if (!record.ok() || size == 0 || size > kMaxU32 || start < result.base_ ||
        start - result.base_ > kMaxU32 || is_stub(start)) {
      continue;
    }
    result.ranges_.push_back(
        {static_cast<uint32_t>(start - result.base_), static_cast<uint32_t>(size)});
  }
  std::sort(result.ranges_.begin(), result.ranges_.end(), [](const Range& a, const Range& b) {
    return a.start != b.start ? a.start < b.start : a.size < b.size;
  });
  result.ranges_.shrink_to_fit();
  return result;
}

std::optional<CodeRange> EhFrameRanges::find(uint64_t address) const {
  if (address < base_) return std::nullopt;
  const uint64_t offset = address - base_;
  auto after = std::upper_bound(ranges_.begin(), ranges_.end(), offset,
                                [](uint64_t a, const Range& range) { return a < range.start; });
  if (after == ranges_.begin()) return std::nullopt;
  const Range& range = *std::prev(after);
  if (offset - range.start >= range.size) return std::nullopt;
  return CodeRange{base_ + range.start, range.size};
}

}  // namespace lockscope
