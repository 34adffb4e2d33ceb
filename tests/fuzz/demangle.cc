// Names of C++ and Rust, and whatever else stands in a symbol table.
#include "symbolize/demangle.h"

#include <cstdlib>

using namespace lockscope;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string name = demangle({reinterpret_cast<const char*>(data), size});
  // What was made fit to be printed is fit, and within bounds.
  if (name.size() > kMaxDemangledBytes + 3 || sanitize(name, name.size()) != name) std::abort();
  return 0;
}
