#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "unwind/byte_source.h"

namespace lockscope {

/// An executable PT_LOAD of an ELF file.
struct CodeSegment {
  uint64_t file_offset = 0;
  uint64_t file_size = 0;
  uint64_t address = 0;  ///< p_vaddr
};

/// A section's bytes and the address they are linked at.
struct ElfSection {
  uint64_t address = 0;
  std::vector<uint8_t> bytes;
};

/// What the table builder wants from an ELF file: its code segments and the
/// sections with unwind information. x86-64 only. Takes nothing in the file on
/// trust: every offset and size is checked against the file's own size.
class ElfCode {
 public:
  /// `source` must outlive the result. Fails for what is not a 64-bit x86 ELF
  /// program or shared library.
  static Result<ElfCode> parse(const ByteSource& source);

  ElfCode(ElfCode&&) = default;
  ElfCode(const ElfCode&) = delete;  // names point into names_

  const std::vector<CodeSegment>& segments() const { return segments_; }

  /// By name; fails if there is none or it is compressed or has no bytes.
  Result<ElfSection> section(std::string_view name) const;

  bool has_section(std::string_view name) const;

  /// `.eh_frame`, found by the section table, else through PT_GNU_EH_FRAME (the
  /// section table may have been stripped). Bytes past its end may follow.
  Result<ElfSection> eh_frame() const;

 private:
  ElfCode() = default;

  struct Header {
    uint32_t type = 0;
    uint64_t flags = 0;
    uint64_t address = 0;
    uint64_t offset = 0;
    uint64_t size = 0;
    std::string_view name;  // into names_
  };

  Status read_program_headers(uint64_t offset, uint16_t entry_size, uint16_t count);
  void read_section_headers(uint64_t offset, uint16_t entry_size, uint16_t count, uint16_t names);
  const Header* find(std::string_view name) const;
  Result<ElfSection> eh_frame_by_header() const;

  const ByteSource* source_ = nullptr;
  std::vector<CodeSegment> segments_;
  std::vector<CodeSegment> loads_;  // all PT_LOAD
  CodeSegment eh_frame_header_;     // PT_GNU_EH_FRAME; file_size 0: none
  std::vector<char> names_;
  std::vector<Header> sections_;
};

}  // namespace lockscope
