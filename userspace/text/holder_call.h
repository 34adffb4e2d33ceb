#pragma once

#include <cstdint>
#include <string>

namespace lockscope {

/// What a holder did, by ActivityRow::call: "nanosleep", "page fault"; empty if it ran.
/// A system call without a name is "syscall 999".
std::string holder_call(int32_t call);

}  // namespace lockscope
