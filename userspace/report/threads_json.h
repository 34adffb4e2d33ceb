#pragma once

#include <string>

#include "diagnose/thread_view.h"

namespace lockscope {

/// "lockscope.threads/1", as docs/threads.schema.json describes it.
std::string threads_json(const ThreadView& view);

/// The JSON name: "running", "runnable", "sleeping", ...
const char* to_string(ThreadState state);

}  // namespace lockscope
