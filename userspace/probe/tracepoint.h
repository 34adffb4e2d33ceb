#pragma once

#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace lockscope {

/// The kernel's tracefs, without asking that anybody has mounted it: a mount
/// of our own that is attached nowhere (fsmount(2), Linux 5.2) and goes away
/// with us.
class Tracefs {
 public:
  /// Fails without CAP_SYS_ADMIN.
  static Result<Tracefs> open();

  /// The id of a tracepoint such as "syscalls/sys_enter_futex"; none if this
  /// kernel lacks it.
  std::optional<int> tracepoint_id(const std::string& name) const;

 private:
  explicit Tracefs(UniqueFd root) : root_(std::move(root)) {}
  UniqueFd root_;
};

/// A perf event for a tracepoint, as a handle by which a BPF program is
/// attached. One on any CPU is enough: the program runs on all.
Result<UniqueFd> open_tracepoint(int id);

}  // namespace lockscope
