#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "symbolize/elf_file.h"

namespace lockscope {

/// Where the symbols are that the run-time linker uses (.dynsym), as offsets in
/// the file.
struct DynamicSymbols {
  uint64_t offset = 0;
  uint64_t count = 0;  ///< entries of Elf64_Sym
  uint64_t strings_offset = 0;
  uint64_t strings_bytes = 0;
};

/// What the run-time linker is told about a file (PT_DYNAMIC): there also where
/// the section table has been stripped.
class DynamicSection {
 public:
  /// Empty when the file has none.
  static DynamicSection load(const ElfFile& file);

  /// The value of a tag (DT_SYMTAB, ...), as it is in the file.
  std::optional<uint64_t> value(int64_t tag) const;

  /// Nothing where the file does not say how many there are.
  std::optional<DynamicSymbols> symbols(const ElfFile& file) const;

  /// Calls `use(where, what)` for every relocation that puts `what`, plus the
  /// load bias, to `where`, until that returns false.
  void for_each_relative(const ElfFile& file,
                         const std::function<bool(uint64_t, uint64_t)>& use) const;

 private:
  std::map<int64_t, uint64_t> values_;
};

}  // namespace lockscope
