#include <algorithm>
#include <limits>
#include <map>

#include "export/flame.h"
#include "export/text.h"

namespace lockscope {
namespace {

// flamegraph.pl and inferno take a second number at the end of a line for a
// differential graph: "main;worker 3 120" would be "main;worker", 3 against 120.
void join_trailing_number(std::string& name) {
  const size_t space = name.find_last_of(' ');
  if (space == std::string::npos || space + 1 == name.size()) return;
  const auto in_number = [](char c) { return (c >= '0' && c <= '9') || c == '.'; };
  if (std::all_of(name.begin() + static_cast<ptrdiff_t>(space) + 1, name.end(), in_number)) {
    name[space] = '_';
  }
}

std::string folded_name(const std::string& raw) {
  std::string name = clean_text(raw);
  std::replace(name.begin(), name.end(), ';', ':');  // as stackcollapse-perf.pl does
  const size_t first = name.find_first_not_of(' ');
  if (first == std::string::npos) return "[unnamed]";
  name = name.substr(first, name.find_last_not_of(' ') - first + 1);
  join_trailing_number(name);
  return name;
}

std::string folded_stack(const FlameStack& stack) {
  if (stack.frames.empty()) return "[no stack]";
  std::string line;
  for (const std::string& frame : stack.frames) {
    if (!line.empty()) line += ';';
    line += folded_name(frame);
  }
  return line;
}

}  // namespace

std::string render_folded(const FlameGraph& graph) {
  std::map<std::string, uint64_t> merged;
  for (const FlameStack& stack : graph.stacks) {
    if (stack.value == 0) continue;
    uint64_t& sum = merged[folded_stack(stack)];
    sum += std::min(stack.value, std::numeric_limits<uint64_t>::max() - sum);
  }
  std::string out;
  for (const auto& [stack, value] : merged) {
    out += stack + ' ' + std::to_string(value) + '\n';
  }
  return out;
}

}  // namespace lockscope
