#pragma once

#include "symbolize/line_table.h"

namespace lockscope {

/// Source lines from DWARF, through libdw: 1-50 µs an address, with inlined
/// functions up to 1 ms, so ask once and keep the answer.
///
/// The only place where libdw meets files of traced processes. It is large and
/// recursive and not made for hostile input: callers keep it to files that only
/// root can write, or that the user vouches for. Others are read into memory
/// (64 MiB at most) and not mapped, as their owner may cut them short.
std::unique_ptr<LineTable> open_dwarf_lines(const ElfFile& file, bool trusted);

}  // namespace lockscope
