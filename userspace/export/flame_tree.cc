#include "export/flame_tree.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <unordered_map>

#include "export/text.h"

namespace lockscope {
namespace {

// Names of template-heavy C++ reach a few KB; beyond that nobody reads them,
// and a hostile symbol table could make the file arbitrarily large.
constexpr size_t kMaxNameBytes = 4096;

// Gives each distinct raw name the rank of its clean text in sorted order, so
// that comparing ranks compares names.
class NameRanks {
 public:
  explicit NameRanks(const std::vector<FlameStack>& stacks) {
    for (const FlameStack& stack : stacks) {
      for (const std::string& frame : stack.frames) ranks_.try_emplace(frame, 0);
    }
    std::unordered_map<std::string_view, std::string> clean;
    for (const auto& [raw, rank] : ranks_) {
      std::string name = clean_text(raw, kMaxNameBytes);
      if (name.find_first_not_of(' ') == std::string::npos) name = "[unnamed]";
      names_.push_back(name);
      clean.emplace(raw, std::move(name));
    }
    names_.push_back("[no stack]");
    std::sort(names_.begin(), names_.end());
    names_.erase(std::unique(names_.begin(), names_.end()), names_.end());
    for (auto& [raw, rank] : ranks_) rank = rank_of(clean[raw]);
  }

  std::vector<uint32_t> ranks(const FlameStack& stack) const {
    if (stack.frames.empty()) return {rank_of("[no stack]")};
    std::vector<uint32_t> ranks;
    ranks.reserve(stack.frames.size());
    for (const std::string& frame : stack.frames) ranks.push_back(ranks_.at(frame));
    return ranks;
  }

  std::vector<std::string> take_names() && { return std::move(names_); }

 private:
  uint32_t rank_of(std::string_view clean) const {
    return static_cast<uint32_t>(std::lower_bound(names_.begin(), names_.end(), clean) -
                                 names_.begin());
  }

  std::vector<std::string> names_;
  std::unordered_map<std::string_view, uint32_t> ranks_;
};

struct RankedStack {
  std::vector<uint32_t> frames;
  uint64_t value;
  uint64_t count;
};

uint64_t saturating_add(uint64_t a, uint64_t b) {
  return a + std::min(b, std::numeric_limits<uint64_t>::max() - a);
}

}  // namespace

FlameTree merge_stacks(const std::vector<FlameStack>& stacks) {
  FlameTree tree;
  NameRanks names(stacks);
  std::vector<RankedStack> ranked;
  ranked.reserve(stacks.size());
  for (const FlameStack& stack : stacks) {
    if (stack.value != 0) ranked.push_back({names.ranks(stack), stack.value, stack.count});
  }
  std::sort(ranked.begin(), ranked.end(),
            [](const RankedStack& a, const RankedStack& b) { return a.frames < b.frames; });

  // In sorted order a box is open as long as the stacks share its path.
  std::vector<size_t> open;
  for (const RankedStack& stack : ranked) {
    size_t common = 0;
    while (common < std::min(open.size(), stack.frames.size()) &&
           tree.boxes[open[common]].name == stack.frames[common]) {
      ++common;
    }
    open.resize(common);
    for (size_t depth = common; depth < stack.frames.size(); ++depth) {
      open.push_back(tree.boxes.size());
      tree.boxes.push_back(
          {stack.frames[depth], static_cast<uint32_t>(depth), tree.total_value, 0, 0});
    }
    const uint64_t end = saturating_add(tree.total_value, stack.value);
    for (const size_t box : open) {
      tree.boxes[box].value += end - tree.total_value;
      tree.boxes[box].count = saturating_add(tree.boxes[box].count, stack.count);
    }
    tree.total_value = end;
    tree.total_count = saturating_add(tree.total_count, stack.count);
    tree.depth = std::max(tree.depth, static_cast<uint32_t>(stack.frames.size()));
  }
  tree.names = std::move(names).take_names();
  return tree;
}

}  // namespace lockscope
