#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "export/flame.h"

namespace lockscope {

/// One box of a flame graph: the merge of equal frames with equal callers.
struct FlameBox {
  uint32_t name;   ///< index in FlameTree::names
  uint32_t depth;  ///< 0 for the outermost frame
  uint64_t start;  ///< where it begins, in values from the left
  uint64_t value;
  uint64_t count;
};

/// The stacks merged from the outermost frame on.
struct FlameTree {
  std::vector<std::string> names;  ///< clean text, sorted
  std::vector<FlameBox> boxes;     ///< a caller before its callees, left to right
  uint64_t total_value = 0;
  uint64_t total_count = 0;
  uint32_t depth = 0;  ///< rows the boxes need
};

/// Merges the stacks; those of value 0 have no width and are left out.
FlameTree merge_stacks(const std::vector<FlameStack>& stacks);

}  // namespace lockscope
