#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "probe/futex_probe.h"

namespace lockscope {

/// What to record, as the command line says it. Exactly one of these is set.
struct Target {
  std::vector<pid_t> pids;
  std::string comm;
  std::string cgroup;                ///< path below /sys/fs/cgroup, or absolute
  bool all = false;
  std::vector<std::string> command;  ///< run it
  std::string file;                  ///< a saved capture

  /// In words, for reports: "pid 42", "command ls -l", "the whole system".
  std::string describe() const;
};

/// A program that was started for recording, held back until release().
class Command {
 public:
  /// Forks; the child waits. With `stdout_to_stderr` its output does not mix
  /// with ours.
  static Result<Command> start(const std::vector<std::string>& arguments, bool stdout_to_stderr);

  Command(Command&&) noexcept = default;
  Command& operator=(Command&&) = delete;
  ~Command();

  pid_t pid() const { return pid_; }

  /// Lets it run the program. Fails if that cannot be run.
  Status release();

  /// Ends it if it still runs, with SIGTERM and after three seconds with SIGKILL.
  void finish();

 private:
  Command(pid_t pid, UniqueFd go, UniqueFd failure)
      : pid_(pid), go_(std::move(go)), failure_(std::move(failure)) {}
  pid_t pid_ = -1;
  UniqueFd go_;       // a byte lets the child go on
  UniqueFd failure_;  // errno of a failed exec, or end of file
};

/// The process that `pid` (a thread of it will do) names. Fails when there is
/// none, or it is a kernel thread.
Result<pid_t> resolve_pid(pid_t pid);

/// A cgroup v2 directory, by its absolute path or as /proc/PID/cgroup has it.
Result<UniqueFd> open_cgroup(const std::string& path);

}  // namespace lockscope
