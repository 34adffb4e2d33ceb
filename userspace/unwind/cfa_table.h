#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "unwind.h"
#include "unwind/byte_source.h"

namespace lockscope {

/// From this offset on (into the segment's table), until the next row, the rule
/// holds.
struct CfaRow {
  uint32_t offset = 0;
  uint16_t rule = 0;  ///< index into CfaTable::rules
};

/// The rows of one executable PT_LOAD of a file, by ascending offset; the
/// first is at 0. Offsets count from `address`.
struct CfaSegment {
  uint64_t file_offset = 0;  ///< of `address`; a multiple of 4096
  uint64_t address = 0;      ///< linked address; file_offset modulo 4096 is kept
  uint64_t size = 0;         ///< bytes
  std::vector<CfaRow> rows;

  uint32_t pages() const {
    return static_cast<uint32_t>((size + (1 << LS_UNWIND_PAGE_SHIFT) - 1) >>
                                 LS_UNWIND_PAGE_SHIFT);
  }
};

/// How to unwind from every instruction of an ELF file.
struct CfaTable {
  std::vector<ls_unwind_rule> rules;
  std::vector<CfaSegment> segments;
};

/// Builds the table of an ELF file from .eh_frame, or .debug_frame where that
/// is missing, and of Go code from Go's table of functions; frame pointers where
/// that can't be read.
///
/// Safe on hostile input: every access is checked, work and memory are linear in
/// the size of the sections read. libc takes about 1 ms, a 60 MB libLLVM 50 ms.
/// Fails if the file is not an x86-64 ELF file or has no unwind information.
Result<CfaTable> build_cfa_table(const ByteSource& source);

/// The rule for a linked address, or nullptr if it lies in no segment.
const ls_unwind_rule* find_rule(const CfaTable& table, uint64_t address);

}  // namespace lockscope
