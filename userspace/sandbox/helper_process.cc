#include "sandbox/helper_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

namespace lockscope {
namespace {

// How often the processor time of one that is slow to answer is looked at.
constexpr int kLookMs = 50;

double seconds(std::chrono::milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

// Runs our own file, also when it was replaced or removed. In a session of its
// own and with signals blocked: Ctrl-C and the like are for us, and it is needed
// longest. It ends with its socket.
Result<pid_t> spawn(const char* name, uint64_t memory_bytes, int socket) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, socket, kHelperSocket);
  for (int fd = 0; fd < kHelperSocket; ++fd) {
    posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
  }
  posix_spawn_file_actions_addclosefrom_np(&files, kHelperSocket + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &all);
  const std::string memory = std::to_string(memory_bytes);
  char* const argv[] = {const_cast<char*>(name), const_cast<char*>(memory.c_str()), nullptr};
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, "/proc/self/exe", &files, &attributes, argv, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return failed(std::string("cannot start a helper: ") + std::strerror(error));
  return pid;
}

}  // namespace

Result<std::unique_ptr<HelperProcess>> HelperProcess::start(const char* name,
                                                            const HelperLimits& limits) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return failed(std::string("cannot make a socket: ") + std::strerror(errno));
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  auto pid = spawn(name, limits.sandbox.memory_bytes, theirs.get());
  if (!pid) return pid.error();
  return std::unique_ptr<HelperProcess>(new HelperProcess(*pid, std::move(ours), limits));
}

HelperProcess::HelperProcess(pid_t pid, UniqueFd socket, const HelperLimits& limits)
    : pid_(pid),
      channel_(std::move(socket), [this](int fd, short events) { return wait(fd, events); }),
      limits_(limits) {}

HelperProcess::Answer HelperProcess::ask(std::string_view request, std::span<const int> fds,
                                         size_t max_reply_bytes) {
  began_ = std::chrono::steady_clock::now();
  cpu_at_begin_ = cpu_seconds();
  Message reply;
  if (pid_ < 0) return {HelperFailure::NotStarted, {}};
  if (!channel_.send(request, fds) || !channel_.receive(max_reply_bytes, reply)) {
    return {find_out(), {}};
  }
  if (!reply.fds.empty()) {
    end();
    return {HelperFailure::BadReply, {}};
  }
  return {std::nullopt, std::move(reply.body)};
}

// Until there is something to read or write; not for ever.
bool HelperProcess::wait(int socket, short events) {
  while (true) {
    pollfd one{socket, events, 0};
    if (::poll(&one, 1, kLookMs) > 0) return true;
    timed_out_ = std::chrono::steady_clock::now() - began_ > limits_.wall ||
                 cpu_seconds() - cpu_at_begin_ > seconds(limits_.cpu);
    if (timed_out_) return false;
  }
}

double HelperProcess::cpu_seconds() const {
  clockid_t clock;
  timespec used{};
  if (pid_ < 0 || ::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &used) != 0) {
    return final_cpu_;
  }
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

bool HelperProcess::has_ended() const {
  siginfo_t info{};
  return pid_ < 0 ||
         (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
          info.si_pid == pid_);
}

HelperFailure HelperProcess::find_out() {
  // One whose socket closed is about to end by itself, and its last word is
  // wanted; any other has said what it should not.
  bool ended = false;
  if (!timed_out_) {
    const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    pollfd one{process.get(), POLLIN, 0};
    ended = ::poll(&one, 1, kLookMs) > 0;
  }
  const int status = end();
  if (timed_out_) return HelperFailure::TimeLimit;
  if (!ended) return HelperFailure::BadReply;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) return HelperFailure::Forbidden;
  if (!WIFEXITED(status)) return HelperFailure::Crashed;
  switch (WEXITSTATUS(status)) {
    case kHelperNoSandbox:
      return HelperFailure::NotStarted;
    case kHelperOutOfMemory:
      return HelperFailure::MemoryLimit;
    default:
      return HelperFailure::Crashed;
  }
}

// Returns its wait status. The pid is ours until it is reaped here.
int HelperProcess::end() {
  if (pid_ < 0) return 0;
  ::kill(pid_, SIGKILL);
  int status = 0;
  rusage usage{};
  while (::wait4(pid_, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  final_cpu_ = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  pid_ = -1;
  return status;
}

}  // namespace lockscope
