#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "symbolize/elf_file.h"

namespace lockscope {

/// Whether the file has the marks of Go's linker. Also programs that are mostly
/// C may: those that link Go code.
bool is_go(const ElfFile& file);

/// Where Go's table of functions (runtime.pclntab) is in a file.
struct GoTablePlace {
  uint64_t address = 0;
  uint64_t offset = 0;
  uint64_t size = 0;  ///< bytes; an upper bound where no section tells
};

/// What every table of Go 1.18 and later begins with (src/debug/gosym/pclntab.go):
/// the magic number, two zero bytes, the instruction size, the pointer size.
inline constexpr uint32_t kGoMagic118 = 0xfffffff0;
inline constexpr uint32_t kGoMagic120 = 0xfffffff1;
inline constexpr uint64_t kGoTableHeaderBytes = 8 + 8 * 8;

/// Finds the table by its section, else by its first bytes: the system's linker
/// merges it into another section. Those found are candidates, best first.
std::vector<GoTablePlace> find_go_tables(const ElfFile& file);

/// The first words of the module data (runtime.moduledata) that belongs to the
/// table at `table`, whose names are at `names`; empty when there is none.
std::vector<uint64_t> find_go_module_data(const ElfFile& file, uint64_t table, uint64_t names);

}  // namespace lockscope
