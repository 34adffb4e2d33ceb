#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "symbolize/elf_file.h"
#include "symbolize/symbol_table.h"

namespace lockscope {

/// Go's own table of functions (runtime.pclntab), which also stripped programs
/// carry: Go 1.18 and later.
class GoPclntab {
 public:
  /// Nothing when the file has none, it is of another version, or it cannot be
  /// told where the code begins that it describes.
  static std::optional<GoPclntab> load(const ElfFile& file);

  /// Adds all functions. The table must live until the builder has built.
  void add_to(SymbolTableBuilder* builder) const;

 private:
  uint32_t u32(uint64_t at) const;
  uint64_t u64(uint64_t at) const;
  bool describes_code_at(const ElfFile& file, uint64_t text) const;
  std::optional<uint64_t> text_from_module_data(const ElfFile& file, uint64_t table) const;

  std::string bytes_;
  uint64_t functions_ = 0;  // how many
  uint64_t names_at_ = 0;   // offsets into bytes_
  uint64_t functab_at_ = 0;
  uint64_t text_ = 0;  // address of the code that offset 0 means
};

}  // namespace lockscope
