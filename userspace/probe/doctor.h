#pragma once

#include <string>
#include <vector>

namespace lockscope {

/// One thing that lockscope needs or can use, and how it stands here.
struct Check {
  enum class State { Ok, Degraded, Missing };
  State state = State::Ok;
  std::string what;
  std::string detail;  ///< what follows, and what to do about it
};

/// What this kernel and these privileges allow, found out by using it. Never
/// fails: what can't be found out is a Missing check.
std::vector<Check> examine_system();

}  // namespace lockscope
