#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "sandbox/channel.h"
#include "sandbox/lockdown.h"

namespace lockscope {

/// What a helper may take for one request.
struct HelperLimits {
  /// Of processor time: the largest known files take a tenth of it.
  std::chrono::milliseconds cpu{3000};
  /// Of anybody's time: for one that is stopped, or gets no processor.
  std::chrono::milliseconds wall{5000};
  SandboxLimits sandbox;
};

/// Why a helper gave no answer.
enum class HelperFailure {
  NotStarted,  ///< or it has no sandbox to work in
  Crashed,     ///< ended by a signal, or left
  Forbidden,   ///< ended by the sandbox, for a system call
  TimeLimit,
  MemoryLimit,
  BadReply,  ///< one that no honest helper gives
};

/// Exit codes of a helper.
inline constexpr int kHelperNoSandbox = 3;
inline constexpr int kHelperOutOfMemory = 4;
/// Where a helper finds its end of the channel.
inline constexpr int kHelperSocket = 3;

/// A child process that runs this program anew, under another argv[0], and
/// answers one request at a time. It is taken to be in the hands of whoever
/// made the files that it reads.
class HelperProcess {
 public:
  /// `name` becomes argv[0], for main() to tell. About 5 ms until the first answer.
  static Result<std::unique_ptr<HelperProcess>> start(const char* name, const HelperLimits& limits);

  HelperProcess(const HelperProcess&) = delete;
  HelperProcess& operator=(const HelperProcess&) = delete;
  ~HelperProcess() { end(); }

  /// The answer to a request, or why there is none; the helper has ended then.
  struct Answer {
    std::optional<HelperFailure> failure;
    std::string body;
  };
  Answer ask(std::string_view request, std::span<const int> fds, size_t max_reply_bytes);

  /// Whether it has ended without being asked anything.
  bool has_ended() const;

  /// Processor time used so far, in s; also after its end.
  double cpu_seconds() const;

 private:
  HelperProcess(pid_t pid, UniqueFd socket, const HelperLimits& limits);
  bool wait(int socket, short events);
  HelperFailure find_out();
  int end();

  pid_t pid_;  // -1: has ended
  Channel channel_;
  HelperLimits limits_;
  // Of the request under way.
  std::chrono::steady_clock::time_point began_;
  double cpu_at_begin_ = 0;
  bool timed_out_ = false;
  double final_cpu_ = 0;
};

}  // namespace lockscope
