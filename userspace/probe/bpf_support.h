#pragma once

#include <string>

#include "base/result.h"

namespace lockscope {

/// Whether this kernel and these privileges let BPF programs be loaded at all;
/// errors: Unsupported. Sends what libbpf has to say to the log from then on.
Status prepare_bpf();

/// What a task iterator writes, from its first task to its last, by the link that
/// it is attached with.
Result<std::string> run_task_iterator(int link_fd);

}  // namespace lockscope
