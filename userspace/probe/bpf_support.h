#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

struct bpf_link;
struct bpf_object;

namespace lockscope {

/// Whether this kernel and these privileges let BPF programs be loaded at all;
/// errors: Unsupported. Sends what libbpf has to say to the log from then on.
Status prepare_bpf();

struct LinkDeleter {
  void operator()(bpf_link* link) const;
};
/// An attached program; detached when destroyed.
using Link = std::unique_ptr<bpf_link, LinkDeleter>;

/// Detaches all at once: each waits for an RCU grace period or two (0.1 s), which they
/// share then.
void take_down(std::vector<Link>& links);

/// Makes the maps of `ours` those of `theirs` that have the same name. Before loading.
Status share_maps(bpf_object* ours, bpf_object* theirs);

/// CPU time spent in an object's programs, in ns, as the kernel's run-time statistics
/// have it (BPF_ENABLE_STATS).
uint64_t run_time_ns(bpf_object* object);

/// What a task iterator writes, from its first task to its last, by the link that
/// it is attached with.
Result<std::string> run_task_iterator(int link_fd);

}  // namespace lockscope
