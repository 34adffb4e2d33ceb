#include "process/pthread_libraries.h"

#include <string_view>

namespace lockscope {
namespace {

std::string_view name_of(const Mapping& mapping) {
  const std::string_view path = mapping.path;
  return path.substr(path.rfind('/') + 1);
}

bool is_libpthread(std::string_view name) {
  return name == "libpthread.so.0" || name.starts_with("libpthread-");
}

bool is_libc(std::string_view name) {
  return name == "libc.so.6" || name.starts_with("libc-2.") || name.starts_with("ld-musl-") ||
         name.starts_with("libc.musl-") || name == "libc.so";
}

}  // namespace

std::vector<Mapping> pthread_libraries(const std::vector<Mapping>& maps) {
  const Mapping *libpthread = nullptr, *libc = nullptr, *program = nullptr;
  for (const Mapping& mapping : maps) {
    if (!mapping.executable || !mapping.has_file()) continue;
    if (is_libpthread(name_of(mapping))) libpthread = &mapping;
    if (is_libc(name_of(mapping))) libc = &mapping;
    if (!program) program = &mapping;
  }
  // Up to glibc 2.33 libc only passes calls on.
  if (libpthread) return {*libpthread};
  if (libc) return {*libc};
  // With a dynamic linker and without libc: it is still on its way.
  const bool is_static = program && [&] {
    for (const Mapping& mapping : maps) {
      if (name_of(mapping).starts_with("ld-")) return false;
    }
    return true;
  }();
  return is_static ? std::vector<Mapping>{*program} : std::vector<Mapping>{};
}

}  // namespace lockscope
