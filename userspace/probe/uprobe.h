#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

struct bpf_link;
struct bpf_program;

namespace lockscope {

/// One place in a file, and what the program at it is told (bpf_get_attach_cookie).
struct UprobePoint {
  uint64_t file_offset = 0;
  uint64_t cookie = 0;
};

/// Uprobes in one file for one process; gone when destroyed.
class Uprobes {
 public:
  /// By one link for all (BPF_TRACE_UPROBE_MULTI, Linux 6.6), which comes and goes
  /// in some ms. The program must have been loaded for that.
  static Result<Uprobes> attach_multi(int program, pid_t pid, const std::string& path,
                                      std::span<const UprobePoint> points);
  /// By a perf event each, of which detaching takes up to 0.1 s.
  static Result<Uprobes> attach_each(bpf_program* program, pid_t pid, const std::string& path,
                                     std::span<const UprobePoint> points, bool with_cookies);

 private:
  struct Deleter {
    void operator()(bpf_link* link) const;
  };
  UniqueFd multi_;
  std::vector<std::unique_ptr<bpf_link, Deleter>> links_;
};

/// Has a program that is not loaded yet be one for attach_multi().
void prepare_for_multi(bpf_program* program);

}  // namespace lockscope
