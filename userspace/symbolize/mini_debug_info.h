#pragma once

#include <optional>

#include "symbolize/elf_file.h"

namespace lockscope {

/// The ELF file inside .gnu_debugdata, which holds the symbols that .dynsym
/// lacks ("MiniDebugInfo", Fedora's habit); nothing if there is none.
std::optional<ElfFile> read_mini_debug_info(const ElfFile& file);

}  // namespace lockscope
