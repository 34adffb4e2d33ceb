// /proc/PID/maps: the kernel's text around paths that the process chose.
#include "process/maps.h"

#include <cstdlib>

using namespace lockscope;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto maps = parse_maps({reinterpret_cast<const char*>(data), size});
  for (const Mapping& mapping : maps) {
    const Mapping* found = find_mapping(maps, mapping.start);
    if (found && !found->contains(mapping.start)) std::abort();
  }
  return 0;
}
