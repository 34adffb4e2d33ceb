#pragma once

#include <vector>

#include "parse/sandboxed_parser.h"
#include "symbolize/symbolizer.h"

namespace lockscope {

/// A symbolizer with a sandboxed parser of its own.
class TestSymbolizer : private SandboxedParser, public Symbolizer {
 public:
  explicit TestSymbolizer(SymbolizerOptions options = {})
      : Symbolizer(static_cast<SandboxedParser&>(*this), options) {}

  SandboxedParser& parser() { return *this; }

  std::vector<Frame> symbolize(pid_t pid, const std::vector<Mapping>& maps, uint64_t address,
                               AddressKind kind) {
    return Symbolizer::symbolize({.pid = pid, .maps = &maps, .address = address, .kind = kind});
  }
};

}  // namespace lockscope
