#include "symbolize/symbol_table.h"

#include <algorithm>
#include <limits>
#include <tuple>

namespace lockscope {
namespace {

constexpr uint32_t kNoParent = std::numeric_limits<uint32_t>::max();
constexpr uint64_t kMaxSize = std::numeric_limits<uint32_t>::max();
// Functions nest one or two deep (assembly in libc). A hostile table may nest
// without end.
constexpr int kMaxNesting = 64;

// "__libc_write" is the house's name for what callers know as "write"; but the
// underscore of a mangled name says nothing.
uint16_t leading_underscores(std::string_view name) {
  if (name.starts_with("_Z") || name.starts_with("_R")) return 0;
  const size_t n = name.find_first_not_of('_');
  return static_cast<uint16_t>(std::min(n, name.size()));
}

}  // namespace

const SymbolTable::Entry* SymbolTable::find_entry(uint64_t address) const {
  auto after = std::upper_bound(entries_.begin(), entries_.end(), address,
                                [](uint64_t a, const Entry& entry) { return a < entry.start; });
  if (after == entries_.begin()) return nullptr;
  auto index = static_cast<uint32_t>(after - entries_.begin() - 1);
  for (int hops = 0; hops < kMaxNesting; ++hops) {
    const Entry& entry = entries_[index];
    if (address - entry.start < entry.size) return &entry;
    if (parents_.empty() || parents_[index] == kNoParent) break;
    index = parents_[index];
  }
  return nullptr;
}

std::optional<Symbol> SymbolTable::find(uint64_t address) const {
  const Entry* entry = find_entry(address);
  if (!entry) return std::nullopt;
  return Symbol{names_.data() + entry->name, entry->start, entry->size};
}

size_t SymbolTable::size_bytes() const {
  return entries_.capacity() * sizeof(Entry) + parents_.capacity() * sizeof(uint32_t) +
         names_.capacity();
}

void SymbolTableBuilder::add(std::string_view name, uint64_t start, uint64_t size, uint64_t limit,
                             int rank) {
  if (full() || name.empty() || name.size() > kMaxNameBytes || size > kMaxSize ||
      start > std::numeric_limits<uint64_t>::max() - size) {
    return;
  }
  if (size == 0 && limit <= start) return;
  const uint64_t reach = limit > start ? std::min(limit - start, kMaxSize) : 0;
  candidates_.push_back({start, name.data(), static_cast<uint32_t>(name.size()),
                         static_cast<uint32_t>(size), static_cast<uint32_t>(reach),
                         static_cast<uint16_t>(rank), leading_underscores(name)});
}

SymbolTable SymbolTableBuilder::build() {
  const auto name_of = [](const Candidate& c) { return std::string_view(c.name, c.name_size); };
  std::sort(candidates_.begin(), candidates_.end(), [&](const Candidate& a, const Candidate& b) {
    if (a.start != b.start) return a.start < b.start;
    if (a.size != b.size) return a.size > b.size;
    return std::tuple(a.underscores, a.rank, a.name_size, name_of(a)) <
           std::tuple(b.underscores, b.rank, b.name_size, name_of(b));
  });

  SymbolTable table;
  std::vector<uint32_t> parents;
  std::vector<uint32_t> around;  // symbols that are open at the current start
  bool nested = false;
  size_t names_bytes = 0;
  for (const Candidate& c : candidates_) names_bytes += c.name_size + 1;
  table.entries_.reserve(candidates_.size());
  table.names_.reserve(std::min(names_bytes, kMaxNamesBytes));
  const auto end_of = [&](uint32_t i) { return table.entries_[i].start + table.entries_[i].size; };

  for (size_t i = 0; i < candidates_.size(); ++i) {
    const Candidate& c = candidates_[i];
    if (i > 0 && candidates_[i - 1].start == c.start && candidates_[i - 1].size == c.size) continue;
    while (!around.empty() && end_of(around.back()) <= c.start) around.pop_back();
    uint64_t size = c.size;
    if (size == 0) {
      // A label inside a function that knows its size names nothing more.
      if (!around.empty()) continue;
      size = c.limit;
      size_t next = i + 1;
      while (next < candidates_.size() && candidates_[next].start == c.start) ++next;
      if (next < candidates_.size()) {
        size = std::min(size, candidates_[next].start - c.start);
      }
      if (size == 0) continue;
    }
    if (table.names_.size() + c.name_size + 1 > kMaxNamesBytes) continue;
    const auto index = static_cast<uint32_t>(table.entries_.size());
    table.entries_.push_back(
        {c.start, static_cast<uint32_t>(size), static_cast<uint32_t>(table.names_.size())});
    table.names_.append(name_of(c));
    table.names_.push_back('\0');
    parents.push_back(around.empty() ? kNoParent : around.back());
    nested |= !around.empty();
    around.push_back(index);
  }
  candidates_ = {};
  table.entries_.shrink_to_fit();
  table.names_.shrink_to_fit();
  if (nested) {
    parents.shrink_to_fit();
    table.parents_ = std::move(parents);
  }
  return table;
}

}  // namespace lockscope
