#pragma once

#include "aggregate/key_indices.h"
#include "capture/capture.h"
#include "record/raw_tables.h"

namespace lockscope {

/// Enters what the pthread tier saw. Rows by stack, which are a sample, are brought
/// up to each object's own sums.
void add_pthread_objects(const RawTables& tables, const KeyIndices& indices, Capture& capture);

}  // namespace lockscope
