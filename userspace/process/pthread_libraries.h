#pragma once

#include <vector>

#include "process/maps.h"

namespace lockscope {

/// The code of a process in which its pthread functions are: the libpthread or libc
/// that it has loaded or, if it has none, the program itself. Empty: nothing is
/// known yet.
std::vector<Mapping> pthread_libraries(const std::vector<Mapping>& maps);

}  // namespace lockscope
