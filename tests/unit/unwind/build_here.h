#pragma once

#include "unwind/byte_source.h"
#include "unwind/cfa_table.h"

namespace lockscope {

/// Tables built in this process: the files are ours.
inline Result<CfaTable> build_here(int fd) { return build_cfa_table(ByteSource::of_file(fd)); }

}  // namespace lockscope
