#pragma once

#include <cstdint>
#include <vector>

#include "symbolize/frame.h"

namespace lockscope {

/// Source lines and inlined functions of one file.
class LineTable {
 public:
  virtual ~LineTable() = default;
  /// The frames at an address (as in the file), innermost first, the last one
  /// being the function that the symbol table knows; modules are left empty.
  /// Empty when nothing is known.
  virtual std::vector<Frame> find(uint64_t address) = 0;
};

}  // namespace lockscope
