#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "symbolize/elf_file.h"

namespace lockscope {

/// A function that a file defines.
struct VersionedSymbol {
  std::string name;
  std::string version;      ///< "GLIBC_2.3.2"; empty: none
  bool is_default = true;   ///< what programs are linked with now
  bool is_indirect = false; ///< IFUNC: the address is that of its resolver
  uint64_t address = 0;
  uint64_t size = 0;  ///< in bytes; 0: not known
};

/// Of the dynamic symbol table with its versions or, in a file without, of the
/// full one: the functions with names that are wanted.
std::vector<VersionedSymbol> read_versioned_symbols(
    const ElfFile& file, const std::function<bool(std::string_view)>& wanted);

}  // namespace lockscope
