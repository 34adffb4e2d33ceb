#pragma once

#include "symbolize/debug_file.h"

namespace lockscope {

/// Fetches debug files from the servers that DEBUGINFOD_URLS names, through
/// elfutils' client library, which caches them (~/.cache/debuginfod_client). Null
/// when the variable is not set or the library not there.
///
/// At most a minute in all and 512 MiB a file. After a failure other than "no
/// such file" nothing more is asked for, which one warning says. Nothing of a
/// file is read here: whether it is the right one is for a FileParser to tell.
FetchDebugFile debuginfod_client_from_environment();

}  // namespace lockscope
