#pragma once

#include <sys/types.h>

#include <string_view>
#include <vector>

#include "process/maps.h"

namespace lockscope {

/// Whether the code that a process makes at run time is known to keep frame
/// pointers: that of a HotSpot JVM which was told to by its command line or
/// environment. What else makes code is not known to, which is no claim that it
/// does not.
bool keeps_frame_pointers(pid_t tgid, const std::vector<Mapping>& maps);

/// The same question to a JVM's arguments (/proc/PID/cmdline) and environment
/// (/proc/PID/environ): the last -XX:+PreserveFramePointer or its negation
/// decides. Arguments come after JDK_JAVA_OPTIONS and JAVA_TOOL_OPTIONS, and
/// _JAVA_OPTIONS after all (arguments.cpp, Arguments::parse_vm_init_args).
bool jvm_keeps_frame_pointers(std::string_view arguments, std::string_view environment);

}  // namespace lockscope
