// The text file in which a run-time system names its code.
#include "symbolize/jit_map.h"

#include <cstdlib>

#include "symbolize/demangle.h"

using namespace lockscope;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const JitMap map = JitMap::parse({reinterpret_cast<const char*>(data), size});
  for (uint64_t address = 0; address < 0x10000; address += 0x35) {
    const auto symbol = map.find(address);
    if (symbol && address - symbol->start >= symbol->size) std::abort();
    if (symbol) demangle(symbol->name);
  }
  return 0;
}
