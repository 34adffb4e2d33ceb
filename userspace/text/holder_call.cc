#include "text/holder_call.h"

#include <seccomp.h>

#include <cstdlib>

#include "holder_tier.h"

namespace lockscope {

std::string holder_call(int32_t call) {
  if (call == LS_CALL_RUNNING) return "";
  if (call == LS_CALL_FAULT) return "page fault";
  char* name = ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, call);
  const std::string found = name == nullptr ? "syscall " + std::to_string(call) : name;
  std::free(name);
  return found;
}

}  // namespace lockscope
