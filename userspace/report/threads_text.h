#pragma once

#include <string>

#include "diagnose/thread_view.h"

namespace lockscope {

/// A thread dump: deadlocks first, then threads by what they are doing.
std::string threads_text(const ThreadView& view);

}  // namespace lockscope
