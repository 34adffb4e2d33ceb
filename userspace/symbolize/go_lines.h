#pragma once

#include <memory>

#include "symbolize/elf_file.h"
#include "symbolize/line_table.h"

namespace lockscope {

/// Functions, source lines and inlined functions of Go code, from the table that
/// every Go program carries; null for files without Go code. Keeps the file open,
/// and next to nothing in memory.
std::unique_ptr<LineTable> open_go_lines(const ElfFile& file);

}  // namespace lockscope
