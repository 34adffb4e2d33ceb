#pragma once

#include <cstdint>
#include <functional>

#include "capture/capture.h"

namespace lockscope {

/// Indices of the capture for what the kernel's tables call by key.
struct KeyIndices {
  std::function<Index(uint64_t process)> process;
  std::function<Index(uint64_t stack)> stack;
  std::function<Index(uint64_t lock)> lock;
};

}  // namespace lockscope
