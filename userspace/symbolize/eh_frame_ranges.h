#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "symbolize/elf_file.h"

namespace lockscope {

/// A function's addresses, without its name.
struct CodeRange {
  uint64_t start = 0;
  uint64_t size = 0;  ///< bytes
};

/// Where functions begin and end according to .eh_frame, which also stripped
/// files keep: 8 bytes a function.
class EhFrameRanges {
 public:
  /// Empty when the file has no .eh_frame or one that does not parse; stops at
  /// the first record that is broken. PLT stubs are left out.
  static EhFrameRanges load(const ElfFile& file);

  std::optional<CodeRange> find(uint64_t address) const;
  size_t size() const { return ranges_.size(); }
  size_t size_bytes() const { return ranges_.capacity() * sizeof(Range); }

 private:
  struct Range {
    uint32_t start;  // bytes from base_
    uint32_t size;
  };

  uint64_t base_ = 0;
  std::vector<Range> ranges_;  // sorted
};

}  // namespace lockscope
