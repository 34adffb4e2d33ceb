#pragma once

#include "aggregate/key_indices.h"
#include "capture/capture.h"
#include "record/raw_tables.h"

namespace lockscope {

/// Enters what the holder tier saw, holds that last included. After the objects of
/// the pthread tier.
void add_holder_tables(const RawTables& tables, const KeyIndices& indices, Capture& capture);

}  // namespace lockscope
