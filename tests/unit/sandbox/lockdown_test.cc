#include "sandbox/lockdown.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <string>

#include "base/fd.h"
#include "process/maps.h"

namespace lockscope {
namespace {

constexpr uint64_t kMemory = 256 << 20;
constexpr int kNotLocked = 99;

pid_t start_locked(const std::function<int()>& act) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  if (!lock_down({.memory_bytes = kMemory})) ::_exit(kNotLocked);
  ::_exit(act());
}

/// How a process ends that does this in the sandbox: its wait status.
int ends(const std::function<int()>& act) {
  int status = 0;
  ::waitpid(start_locked(act), &status, 0);
  return status;
}

bool is_killed(const std::function<void()>& act) {
  const int status = ends([&] { return act(), 0; });
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

TEST(Lockdown, KillsWhatReachesOut) {
  EXPECT_TRUE(is_killed([] { ::open("/dev/null", O_RDONLY); })) << "open";
  EXPECT_TRUE(is_killed([] { ::syscall(SYS_open, "/dev/null", O_RDONLY); })) << "open";
  EXPECT_TRUE(is_killed([] { ::socket(AF_INET, SOCK_STREAM, 0); })) << "socket";
  EXPECT_TRUE(is_killed([] { ::execl("/bin/true", "true", nullptr); })) << "execve";
  EXPECT_TRUE(is_killed([] { ::fork(); })) << "fork";
  EXPECT_TRUE(is_killed([] { ::kill(::getppid(), SIGKILL); })) << "kill";
  EXPECT_TRUE(is_killed([] { (void)!::write(1, "x", 1); })) << "write";
  EXPECT_TRUE(is_killed([] { (void)!::chdir("/"); })) << "chdir";
  EXPECT_TRUE(is_killed([] {
    struct stat status;
    ::stat("/etc/passwd", &status);
  })) << "stat";
  EXPECT_TRUE(is_killed([] {
    const rlimit all{RLIM_INFINITY, RLIM_INFINITY};
    ::setrlimit(RLIMIT_DATA, &all);
  })) << "setrlimit";
  constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;
  EXPECT_TRUE(is_killed([] { ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, kAnonymous, -1, 0); }))
      << "memory that can be executed";
  EXPECT_TRUE(is_killed([] {
    ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  })) << "memory that is not counted";
  EXPECT_TRUE(is_killed([] {
    static char page[8192];
    ::mprotect(page, 4096, PROT_READ | PROT_EXEC);
  })) << "mprotect";
}

TEST(Lockdown, LeavesReadingAndComputing) {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(ends([&] {
              char magic[4];
              if (::pread(file.get(), magic, sizeof magic, 0) != sizeof magic) return 1;
              if (::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, file.get(), 0) == MAP_FAILED)
                return 2;
              const std::string much(64 << 20, 'x');
              return much.back() == 'x' ? 0 : 3;
            }),
            0);
}

TEST(Lockdown, LimitsMemory) {
  EXPECT_EQ(ends([] {
              void* volatile large = std::malloc(kMemory + (1 << 20));
              return large == nullptr ? 0 : 1;
            }),
            0);
}

TEST(Lockdown, DropsPrivileges) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const UniqueFd says(ends[1]);
  UniqueFd hears(ends[0]);
  // Its status is read while it waits to be spoken to.
  int ready[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ready), 0);
  const UniqueFd ours(ready[0]), its(ready[1]);
  const pid_t pid = start_locked([&] {
    char byte = 0;
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    ::sendmsg(its.get(), &message, 0);
    return static_cast<int>(::read(hears.get(), &byte, 1)) - 1;
  });
  char byte;
  ASSERT_EQ(::read(ours.get(), &byte, 1), 1);
  const auto status = read_file("/proc/" + std::to_string(pid) + "/status");
  ASSERT_EQ(::write(says.get(), "x", 1), 1);
  int code = 0;
  ::waitpid(pid, &code, 0);
  EXPECT_EQ(code, 0);
  ASSERT_TRUE(status.ok());
  for (const char* line : {"\nCapEff:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n",
                           "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n"}) {
    EXPECT_NE(status->find(line), std::string::npos) << line << *status;
  }
  if (::geteuid() == 0) {
    EXPECT_NE(status->find("\nUid:\t65534\t65534\t65534\t65534\n"), std::string::npos) << *status;
  }
}

}  // namespace
}  // namespace lockscope
