#include "symbolize/symbolize_capture.h"

#include <map>
#include <utility>

namespace lockscope {

SymbolizedCapture symbolize(Capture capture, Symbolizer& symbolizer) {
  SymbolizedCapture named;
  named.frames.reserve(capture.stacks.size());
  const std::vector<Mapping> no_mappings;
  for (const Stack& stack : capture.stacks) {
    auto& frames = named.frames.emplace_back();
    const Process* process = stack.process == kNone ? nullptr : &capture.processes[stack.process];
    for (size_t i = 0; i < stack.addresses.size(); i++) {
      const auto here = symbolizer.symbolize(
          process ? process->pid : 0, process ? process->mappings : no_mappings, stack.addresses[i],
          i == 0 ? AddressKind::Exact : AddressKind::Return);
      frames.insert(frames.end(), here.begin(), here.end());
    }
  }
  named.capture = std::move(capture);
  return named;
}

}  // namespace lockscope
