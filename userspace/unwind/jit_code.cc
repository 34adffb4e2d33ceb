#include "unwind/jit_code.h"

#include <algorithm>
#include <string>

namespace lockscope {
namespace {

/// What a text of options says last; `before` where it says nothing.
bool decide(std::string_view options, bool before) {
  const size_t on = options.rfind("-XX:+PreserveFramePointer");
  const size_t off = options.rfind("-XX:-PreserveFramePointer");
  if (on == options.npos && off == options.npos) return before;
  return off == options.npos || (on != options.npos && on > off);
}

/// The value of a variable in a list of strings that end with zeros.
std::string_view variable(std::string_view environment, std::string_view name) {
  while (!environment.empty()) {
    const size_t end = std::min(environment.find('\0'), environment.size());
    const std::string_view entry = environment.substr(0, end);
    if (entry.starts_with(name) && entry.substr(name.size()).starts_with('='))
      return entry.substr(name.size() + 1);
    environment.remove_prefix(std::min(end + 1, environment.size()));
  }
  return {};
}

}  // namespace

bool jvm_keeps_frame_pointers(std::string_view arguments, std::string_view environment) {
  bool keeps = false;
  keeps = decide(variable(environment, "JAVA_TOOL_OPTIONS"), keeps);
  keeps = decide(variable(environment, "JDK_JAVA_OPTIONS"), keeps);
  keeps = decide(arguments, keeps);
  return decide(variable(environment, "_JAVA_OPTIONS"), keeps);
}

bool keeps_frame_pointers(pid_t tgid, const std::vector<Mapping>& maps) {
  const bool jvm = std::any_of(maps.begin(), maps.end(), [](const Mapping& mapping) {
    return mapping.executable && mapping.path.ends_with("/libjvm.so");
  });
  if (!jvm) return false;
  const std::string proc = "/proc/" + std::to_string(tgid);
  const auto arguments = read_file(proc + "/cmdline");
  const auto environment = read_file(proc + "/environ");
  return arguments && environment && jvm_keeps_frame_pointers(*arguments, *environment);
}

}  // namespace lockscope
