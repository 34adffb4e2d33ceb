#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "parse/file_parser.h"

namespace lockscope {

/// Brings the debug file of a build id (in hex) from elsewhere, opened for
/// reading only; an invalid descriptor where there is none. May take its time.
using FetchDebugFile = std::function<UniqueFd(const std::string& build_id)>;

/// Opens the regular file `path` as a process whose root directory is `root`
/// sees it: symbolic links can't lead out of it, and devices and FIFOs are
/// refused without being opened.
Result<UniqueFd> open_in_root(const std::string& root, const std::string& path);

/// Opens the separate debug file of a file with these links (which the process
/// knows as `path`), by build id or by .gnu_debuglink, in the first of `roots`
/// that has it. Only one that belongs: same build id, or else the CRC that the
/// link asks for. An invalid descriptor if there is none.
UniqueFd find_debug_file(FileParser& parser, const ElfLinks& links, const std::string& path,
                         const std::vector<std::string>& roots);

/// Opens the file that dwz(1) moved the common parts of several debug files to.
UniqueFd find_supplement(FileParser& parser, const ElfLinks& links,
                         const std::vector<std::string>& roots);

}  // namespace lockscope
