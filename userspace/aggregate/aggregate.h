#pragma once

#include "capture/capture.h"
#include "record/raw_tables.h"

namespace lockscope {

/// Makes a capture of the kernel's tables: resolves keys to indices, adds the
/// waits still in flight, and closes the books at the end of the capture. Pure.
/// Leaves host, kernel, target, start and tiers to the caller.
Capture aggregate(const RawTables& tables);

}  // namespace lockscope
