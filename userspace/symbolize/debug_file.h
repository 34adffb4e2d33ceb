#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "symbolize/elf_file.h"

namespace lockscope {

/// Opens the regular file `path` as a process whose root directory is `root`
/// sees it: symbolic links can't lead out of it, and devices and FIFOs are
/// refused without being opened.
Result<UniqueFd> open_in_root(const std::string& root, const std::string& path);

/// The separate debug file of `elf` (which the process knows as `path`), by
/// build id or by .gnu_debuglink, in the first of `roots` that has it. Only one
/// that belongs: same build id, or else the CRC that the link asks for.
std::optional<ElfFile> find_debug_file(const ElfFile& elf, const std::string& path,
                                       const std::vector<std::string>& roots);

}  // namespace lockscope
