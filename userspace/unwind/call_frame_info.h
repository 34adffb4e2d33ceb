#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "unwind.h"
#include "unwind/elf_code.h"

namespace lockscope {

enum class CfiKind {
  EhFrame,     ///< .eh_frame: LSB 5.0, 10.6
  DebugFrame,  ///< .debug_frame: DWARF 5, 6.4
};

/// Common information entry, as far as unwinding by rsp and rbp needs it.
struct CfiCommon {
  uint64_t code_align = 1;
  int64_t data_align = 1;
  uint8_t pointer_encoding = 0;  ///< of the addresses in its FDEs
  bool augmented = false;        ///< FDEs carry augmentation data ('z')
  bool signal_frame = false;     ///< 'S'
  bool usable = false;           ///< understood; else its FDEs yield UNSUPPORTED
  std::span<const uint8_t> program;
};

/// Frame description entry: the code that it covers and its instructions.
struct CfiRange {
  uint64_t start = 0;  ///< linked address
  uint64_t end = 0;
  uint32_t common = 0;  ///< index into CallFrameInfo::commons
  std::span<const uint8_t> program;
};

/// The entries of one section, in order of address and without overlap (the
/// first one to claim an address keeps it). Spans point into the section.
struct CallFrameInfo {
  std::vector<CfiCommon> commons;
  std::vector<CfiRange> ranges;
};

/// Reads the entries of a section. Never fails: reading ends at the first
/// entry that makes no sense, and what came before it counts. Work is linear in
/// the size of the section.
CallFrameInfo parse_call_frame_info(const ElfSection& section, CfiKind kind);

/// Interprets the entry and calls `emit(address, rule)` for its start and for
/// every address within it where the rule changes, in ascending order. Work is
/// linear in the length of its program.
void run_call_frame_program(const CallFrameInfo& info, const CfiRange& range,
                            const std::function<void(uint64_t, ls_unwind_rule)>& emit);

}  // namespace lockscope
