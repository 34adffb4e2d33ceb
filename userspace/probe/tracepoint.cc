#include "probe/tracepoint.h"

#include <fcntl.h>
#include <linux/perf_event.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include <cerrno>
#include <charconv>
#include <cstring>

namespace lockscope {

Result<Tracefs> Tracefs::open() {
  UniqueFd context(::fsopen("tracefs", FSOPEN_CLOEXEC));
  if (context && ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0) {
    UniqueFd root(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
    if (root) return Tracefs(std::move(root));
  }
  const int error = errno;
  UniqueFd mounted(::open("/sys/kernel/tracing", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (mounted && ::faccessat(mounted.get(), "events", F_OK, 0) == 0) {
    return Tracefs(std::move(mounted));
  }
  return unsupported(std::string("cannot open tracefs: ") + std::strerror(error) +
                     " (run as root)");
}

std::optional<int> Tracefs::tracepoint_id(const std::string& name) const {
  UniqueFd fd(::openat(root_.get(), ("events/" + name + "/id").c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return {};
  char text[32];
  const ssize_t size = ::read(fd.get(), text, sizeof text);
  int id = 0;
  if (size <= 0 || std::from_chars(text, text + size, id).ec != std::errc{}) return {};
  return id;
}

Result<UniqueFd> open_tracepoint(int id) {
  struct perf_event_attr attributes {};
  attributes.type = PERF_TYPE_TRACEPOINT;
  attributes.size = sizeof attributes;
  attributes.config = static_cast<uint64_t>(id);
  UniqueFd fd(static_cast<int>(
      ::syscall(SYS_perf_event_open, &attributes, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)));
  if (!fd) return unsupported(std::string("cannot open a tracepoint: ") + std::strerror(errno));
  return fd;
}

}  // namespace lockscope
