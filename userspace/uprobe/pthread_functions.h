#pragma once

#include <span>
#include <string_view>

#include "uprobe/probe_plan.h"

namespace lockscope {

/// A function of libc, by name.
struct PthreadFunction {
  std::string_view name;
  ls_call call;
  uint8_t arguments;  ///< bits of those that a probe reads
};

/// Functions of the same call one after another, pthread's before C11's.
std::span<const PthreadFunction> pthread_functions();

}  // namespace lockscope
