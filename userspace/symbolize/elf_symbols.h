#pragma once

#include <optional>

#include "symbolize/eh_frame_ranges.h"
#include "symbolize/elf_file.h"
#include "symbolize/symbol_table.h"

namespace lockscope {

/// The functions and variables of one ELF file by virtual address (as in the
/// file, before relocation). Independent of the file once loaded.
class ElfSymbols {
 public:
  /// Takes symbols from .symtab (of `debug_file` if it has more) and
  /// .dynsym (found by PT_DYNAMIC if need be); where there is no .symtab, also
  /// function boundaries from .eh_frame.
  /// Broken parts are left out: an empty table is a valid result.
  static ElfSymbols load(const ElfFile& file, const ElfFile* debug_file = nullptr);

  /// The function that holds `address`; never the nearest before it.
  std::optional<Symbol> find(uint64_t address) const& { return symbols_.find(address); }
  std::optional<Symbol> find(uint64_t address) && = delete;  // the name would dangle
  /// The nameless function that holds `address`.
  std::optional<CodeRange> find_range(uint64_t address) const { return ranges_.find(address); }

  /// The variable, of those that can be written to, that holds `address`.
  std::optional<Symbol> find_object(uint64_t address) const& { return objects_.find(address); }
  std::optional<Symbol> find_object(uint64_t address) && = delete;

  size_t size() const { return symbols_.size(); }
  size_t size_bytes() const {
    return symbols_.size_bytes() + objects_.size_bytes() + ranges_.size_bytes();
  }

 private:
  SymbolTable symbols_;
  SymbolTable objects_;
  EhFrameRanges ranges_;
};

}  // namespace lockscope
