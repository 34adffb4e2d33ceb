#include "symbolize/symbolize_capture.h"

#include <map>
#include <utility>

namespace lockscope {

namespace {

// As many as the symbolizer is sure to keep the answers of.
constexpr size_t kAddressesAtOnce = 32 << 10;

std::vector<CodeAddress> code_of(const Stack& stack, const Capture& capture) {
  static const std::vector<Mapping> kNoMappings;
  const Process* process = stack.process == kNone ? nullptr : &capture.processes[stack.process];
  std::vector<CodeAddress> code;
  for (const uint64_t address : stack.addresses) {
    code.push_back({.pid = process ? process->pid : 0,
                    .maps = process ? &process->mappings : &kNoMappings,
                    .address = address});
  }
  return code;
}

// After the stacks: debug files that these brought name variables as well.
template <class Thing>
void name_variables(std::vector<Thing>& things, const Capture& capture, Symbolizer& symbolizer) {
  std::map<Index, std::vector<Thing*>> of_process;
  for (Thing& thing : things) {
    if (thing.process != kNone) of_process[thing.process].push_back(&thing);
  }
  for (const auto& [index, here] : of_process) {
    const Process& process = capture.processes[index];
    std::vector<uint64_t> addresses;
    for (const Thing* thing : here) addresses.push_back(thing->address);
    auto objects = symbolizer.find_objects(process.pid, process.mappings, addresses);
    for (size_t i = 0; i < here.size(); ++i) {
      here[i]->object = std::move(objects[i].name);
      here[i]->object_offset = objects[i].offset;
    }
  }
}

}  // namespace

SymbolizedCapture symbolize(Capture capture, Symbolizer& symbolizer) {
  SymbolizedCapture named;
  named.frames.reserve(capture.stacks.size());
  for (size_t next = 0; next < capture.stacks.size();) {
    std::vector<CodeAddress> batch;
    while (next < capture.stacks.size() && batch.size() < kAddressesAtOnce) {
      const auto code = code_of(capture.stacks[next++], capture);
      batch.insert(batch.end(), code.begin(), code.end());
    }
    symbolizer.prepare(batch);
    while (named.frames.size() < next) {
      const Stack& stack = capture.stacks[named.frames.size()];
      auto& frames = named.frames.emplace_back();
      for (const CodeAddress& address : code_of(stack, capture)) {
        const auto here = symbolizer.symbolize(address);
        frames.insert(frames.end(), here.begin(), here.end());
      }
    }
  }
  name_variables(capture.locks, capture, symbolizer);
  name_variables(capture.objects, capture, symbolizer);
  named.capture = std::move(capture);
  return named;
}

}  // namespace lockscope
