#pragma once

#include <sys/types.h>

#include <vector>

#include "base/result.h"
#include "capture/census.h"
#include "parse/file_parser.h"
#include "symbolize/symbolizer.h"

namespace lockscope {

/// What all threads of these processes are doing, without stopping them: their
/// registers come from a task iterator, their stacks from their memory, and the
/// iterator's next round tells who ran meanwhile; those are looked at again.
///
/// `capture.duration_ns` is the time it took from the first look to the last: a
/// few ms for 1,000 threads. Unwind tables are made before, names found after.
/// Errors: no such process (Failed), kernel or privileges (Unsupported).
Result<Census> take_census(const std::vector<pid_t>& pids, FileParser& parser,
                           Symbolizer& symbolizer);

}  // namespace lockscope
