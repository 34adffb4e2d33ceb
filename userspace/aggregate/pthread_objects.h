#pragma once

#include <cstdint>
#include <functional>

#include "capture/capture.h"
#include "record/raw_tables.h"

namespace lockscope {

/// Indices of the capture for what the kernel's tables call by key.
struct KeyIndices {
  std::function<Index(uint64_t process)> process;
  std::function<Index(uint64_t stack)> stack;
};

/// Enters what the pthread tier saw. Rows by stack, which are a sample, are brought
/// up to each object's own sums.
void add_pthread_objects(const RawTables& tables, const KeyIndices& indices, Capture& capture);

}  // namespace lockscope
