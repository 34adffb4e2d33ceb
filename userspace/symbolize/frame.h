#pragma once

#include <cstdint>
#include <string>

namespace lockscope {

/// One named frame of a stack. `function` is demangled, or "module+0xoffset"
/// when no symbol covers the address: never a guess.
struct Frame {
  std::string function;
  std::string file;    ///< source file, empty when unknown
  uint32_t line = 0;   ///< source line, 0 when unknown
  std::string module;  ///< base name of the ELF file, "[vdso]", "[jit]", ...
  bool inlined = false;

  bool operator==(const Frame&) const = default;
};

}  // namespace lockscope
