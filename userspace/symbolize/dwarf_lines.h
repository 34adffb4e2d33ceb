#pragma once

#include <memory>

#include "symbolize/elf_file.h"
#include "symbolize/line_table.h"

namespace lockscope {

/// Source lines from DWARF, through libdw: 1-50 µs an address, with inlined
/// functions up to 1 ms, so ask once and keep the answer. Null when there are
/// none. `supplement` is the file that .gnu_debugaltlink names: without it there
/// are none either, as every other name would be missing.
///
/// The only place where libdw meets files of traced processes. It is large and
/// recursive and not made for hostile input, and maps files, which their owner
/// may cut short: only for a process that may come to harm (see FileParser).
std::unique_ptr<LineTable> open_dwarf_lines(const ElfFile& file, const ElfFile* supplement);

}  // namespace lockscope
