#include "record/target.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>

#include "process/maps.h"

namespace lockscope {

namespace {

// A command that does not end on SIGTERM within this is killed.
constexpr int kPatienceMs = 3000;

}  // namespace

std::string Target::describe() const {
  if (!file.empty()) return "capture " + file;
  if (all) return "the whole system";
  if (!comm.empty()) return "processes named " + comm;
  if (!cgroup.empty()) return "cgroup " + cgroup;
  std::string text;
  if (!command.empty()) {
    text = "command";
    for (const std::string& word : command) text += " " + word;
    return text;
  }
  for (const pid_t pid : pids) text += (text.empty() ? "pid " : ", ") + std::to_string(pid);
  return text;
}

Result<Command> Command::start(const std::vector<std::string>& arguments, bool stdout_to_stderr) {
  int go[2], failure[2];
  if (::pipe2(go, O_CLOEXEC) != 0) return failed("cannot make a pipe");
  UniqueFd go_read(go[0]), go_write(go[1]);
  if (::pipe2(failure, O_CLOEXEC) != 0) return failed("cannot make a pipe");
  UniqueFd failure_read(failure[0]), failure_write(failure[1]);

  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid < 0) return failed(std::string("cannot fork: ") + std::strerror(errno));
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    go_write.reset();
    if (stdout_to_stderr) ::dup2(STDERR_FILENO, STDOUT_FILENO);
    char byte;
    if (::read(go_read.get(), &byte, 1) != 1) ::_exit(127);
    ::execvp(argv[0], argv.data());
    const int error = errno;
    [[maybe_unused]] const ssize_t n = ::write(failure_write.get(), &error, sizeof error);
    ::_exit(127);
  }
  return Command(pid, std::move(go_write), std::move(failure_read));
}

Command::~Command() {
  if (go_ || failure_) finish();
}

Status Command::release() {
  const char byte = 1;
  if (::write(go_.get(), &byte, 1) != 1) return failed("the command ended before it began");
  go_.reset();
  int error = 0;
  if (::read(failure_.get(), &error, sizeof error) == sizeof error) {
    return failed(std::string("cannot run the command: ") + std::strerror(error));
  }
  return {};
}

void Command::finish() {
  go_.reset();
  failure_.reset();
  if (pid_ <= 0) return;
  if (::waitpid(pid_, nullptr, WNOHANG) == 0) {
    const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    pollfd ended{process.get(), POLLIN, 0};
    ::kill(pid_, SIGTERM);
    if (::poll(&ended, 1, kPatienceMs) <= 0) ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_ = -1;
}

Result<pid_t> resolve_pid(pid_t pid) {
  const Error no_such = failed("no such process: " + std::to_string(pid));
  if (pid <= 0) return no_such;
  auto status = read_file("/proc/" + std::to_string(pid) + "/status");
  if (!status) return no_such;
  const auto field = [&](std::string_view name) -> long {
    const size_t at = status->find("\n" + std::string(name) + ":\t");
    return at == std::string::npos ? -1 : std::atol(status->c_str() + at + name.size() + 3);
  };
  if (status->find("\nState:\tZ") != std::string::npos) return no_such;
  if (field("VmSize") < 0) return failed("process " + std::to_string(pid) + " is a kernel thread");
  const long tgid = field("Tgid");
  if (tgid <= 0) return no_such;
  return static_cast<pid_t>(tgid);
}

Result<UniqueFd> open_cgroup(const std::string& path) {
  for (const std::string prefix : {"", "/sys/fs/cgroup", "/sys/fs/cgroup/unified",
                                   "/sys/fs/cgroup/", "/sys/fs/cgroup/unified/"}) {
    UniqueFd fd(::open((prefix + path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) continue;
    struct statfs info {};
    if (::fstatfs(fd.get(), &info) == 0 && info.f_type == CGROUP2_SUPER_MAGIC) return fd;
  }
  return failed("no such cgroup (v2): " + path);
}

}  // namespace lockscope
