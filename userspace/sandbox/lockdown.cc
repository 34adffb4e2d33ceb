#include "sandbox/lockdown.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/fd.h"

namespace lockscope {
namespace {

constexpr uid_t kNobody = 65534;
// A table of symbols with lines takes two or three.
constexpr uint64_t kMaxDescriptors = 4096;
// Mappings of files are address space, not memory; this only keeps it finite.
constexpr uint64_t kMaxAddressBytes = 32ull << 30;

Error system_error(const char* what) {
  return failed(std::string("sandbox: ") + what + ": " + std::strerror(errno));
}

bool limit(__rlimit_resource resource, uint64_t value) {
  rlimit now{};
  if (::getrlimit(resource, &now) != 0) return false;
  value = std::min<uint64_t>(value, now.rlim_max);
  const rlimit wanted{value, value};
  return ::setrlimit(resource, &wanted) == 0;
}

// If memory runs out, this process is the one to go.
void volunteer_for_oom() {
  const UniqueFd file(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  [[maybe_unused]] const ssize_t n = ::write(file.get(), "1000", 4);
}

// Another root directory and another user, as far as we are root; without
// privileges there is nothing to give up.
Status drop_privileges() {
  if (::geteuid() == 0) {
    // A directory with nothing of anybody else's in it.
    if (::chroot("/proc/self/fdinfo") == 0 && ::chdir("/") != 0) return system_error("chdir");
    // In a user namespace there may be no such user: then without capabilities.
    if (::setgroups(0, nullptr) == 0 && ::setresgid(kNobody, kNobody, kNobody) == 0) {
      (void)::setresuid(kNobody, kNobody, kNobody);
    }
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(SYS_capset, &header, none) != 0) return system_error("capset");
  return {};
}

// What the parsers and the libraries under them (libdw, liblzma, zlib, malloc)
// need. Without newfstatat, which glibc's fstat() uses, as it takes paths.
int add_rules(scmp_filter_ctx filter) {
  for (const int call :
       {SCMP_SYS(read), SCMP_SYS(pread64), SCMP_SYS(lseek), SCMP_SYS(fstat), SCMP_SYS(dup),
        SCMP_SYS(close), SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(munmap), SCMP_SYS(mremap),
        SCMP_SYS(brk), SCMP_SYS(madvise), SCMP_SYS(sysinfo) /* qsort */, SCMP_SYS(futex),
        SCMP_SYS(exit), SCMP_SYS(exit_group)}) {
    if (const int error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0)) return error;
  }
  // libdw wants to know the path of a file that has none, and lives without.
  if (const int error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(readlink), 0)) {
    return error;
  }
  // Shared memory would not count as memory of our own (RLIMIT_DATA).
  return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
                          SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
                          SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_TYPE, MAP_PRIVATE));
}

Status filter_system_calls() {
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(seccomp_init(SCMP_ACT_KILL_PROCESS),
                                                                seccomp_release);
  if (!filter) return failed("sandbox: no memory for a filter");
  int error = add_rules(filter.get());
  if (error == 0) error = seccomp_load(filter.get());
  if (error != 0) return failed(std::string("sandbox: seccomp: ") + std::strerror(-error));
  return {};
}

}  // namespace

Status lock_down(const SandboxLimits& limits) {
  volunteer_for_oom();
  if (Status dropped = drop_privileges(); !dropped) return dropped;
  if (!limit(RLIMIT_DATA, limits.memory_bytes) || !limit(RLIMIT_AS, kMaxAddressBytes) ||
      !limit(RLIMIT_NOFILE, kMaxDescriptors) || !limit(RLIMIT_CORE, 0) || !limit(RLIMIT_FSIZE, 0) ||
      !limit(RLIMIT_NPROC, 0)) {
    return system_error("setrlimit");
  }
  // After the change of user, which resets both.
  if (::prctl(PR_SET_DUMPABLE, 0) != 0 || ::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 ||
      ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return system_error("prctl");
  }
  return filter_system_calls();
}

}  // namespace lockscope
