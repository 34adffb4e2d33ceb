#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "symbolize/elf_file.h"

namespace lockscope {

/// What the run-time linker is told about a file (PT_DYNAMIC): there also where
/// the section table has been stripped.
class DynamicSection {
 public:
  /// Empty when the file has none.
  static DynamicSection load(const ElfFile& file);

  /// The value of a tag (DT_SYMTAB, ...), as it is in the file.
  std::optional<uint64_t> value(int64_t tag) const;

  /// Calls `use(where, what)` for every relocation that puts `what`, plus the
  /// load bias, to `where`, until that returns false.
  void for_each_relative(const ElfFile& file,
                         const std::function<bool(uint64_t, uint64_t)>& use) const;

 private:
  std::map<int64_t, uint64_t> values_;
};

}  // namespace lockscope
