#pragma once

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "base/fd.h"

namespace lockscope::testing {

/// The number of a tracepoint ("syscalls/sys_exit_futex"), -1 if there is none.
/// From a tracefs of our own that is mounted nowhere: the machine may have none
/// and is left as it was.
inline int tracepoint_id(const std::string& name) {
  // linux/mount.h: FSCONFIG_CMD_CREATE
  constexpr unsigned kCreate = 6;
  UniqueFd context(static_cast<int>(::syscall(SYS_fsopen, "tracefs", 0)));
  if (!context || ::syscall(SYS_fsconfig, context.get(), kCreate, nullptr, nullptr, 0) != 0)
    return -1;
  UniqueFd mount(static_cast<int>(::syscall(SYS_fsmount, context.get(), 0, 0)));
  if (!mount) return -1;
  UniqueFd file(::openat(mount.get(), ("events/" + name + "/id").c_str(), O_RDONLY));
  char text[32] = {};
  if (!file || ::read(file.get(), text, sizeof text - 1) <= 0) return -1;
  return std::atoi(text);
}

}  // namespace lockscope::testing
