#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "capture/capture.h"

namespace lockscope {

/// Why a stack is not whole, in a few words; nullptr if it is. kNone, a row
/// without a stack, is not. Of several reasons the one that came first.
const char* why_incomplete(const Capture& capture, Index stack);

/// How much of what was seen has whole stacks.
struct StackCoverage {
  struct Amount {
    uint64_t stacks = 0;    ///< distinct ones
    uint64_t waits = 0;     ///< that they were taken at, ended or not
    uint64_t wait_ns = 0;   ///< the waiting in those
    uint64_t releases = 0;  ///< that they were taken at
  };
  Amount all;
  Amount whole;
  std::map<std::string, Amount> incomplete;  ///< by why_incomplete(): all but `whole`
};

/// Releases nobody was seen to make (time-outs, signals) have no stack that
/// could be whole, and are not counted. Pure.
StackCoverage stack_coverage(const Capture& capture);

}  // namespace lockscope
