#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lockscope {

/// A symbol as it is in the file: not demangled, not sanitized.
struct Symbol {
  std::string_view name;  ///< valid as long as the table
  uint64_t start = 0;
  uint64_t size = 0;  ///< bytes
};

/// Address ranges with names, compact and searched by halving: 16 bytes a
/// symbol plus the names in one pool (libc with its debug file: 3,000 symbols,
/// 0.1 MB). Filled by a SymbolTableBuilder.
class SymbolTable {
 public:
  /// The innermost symbol that holds `address`; never the nearest before it.
  std::optional<Symbol> find(uint64_t address) const;

  size_t size() const { return entries_.size(); }
  size_t size_bytes() const;

 private:
  friend class SymbolTableBuilder;
  struct Entry {
    uint64_t start;
    uint32_t size;
    uint32_t name;  // offset into names_
  };

  const Entry* find_entry(uint64_t address) const;

  std::vector<Entry> entries_;  // by start, larger first
  // For tables where a symbol begins inside another: the index of the one
  // around it, kNoParent if none. Empty when there is no such symbol.
  std::vector<uint32_t> parents_;
  std::string names_;  // NUL-terminated
};

/// Collects symbols in any order and decides between those that compete.
class SymbolTableBuilder {
 public:
  /// Beyond these, symbols are left out: a hostile file must not fill memory.
  /// (chrome, unstripped: 0.9 M symbols.)
  static constexpr size_t kMaxSymbols = 2 << 20;
  static constexpr size_t kMaxNamesBytes = 256 << 20;
  static constexpr size_t kMaxNameBytes = 16 << 10;

  /// `name` must stay valid until build(). A symbol of size 0 reaches up to
  /// the next one, at most to `limit`. Where several names have the same
  /// range, the one with the fewest leading underscores wins, then the lowest
  /// `rank`, then the shortest, then the first of the alphabet.
  void add(std::string_view name, uint64_t start, uint64_t size, uint64_t limit, int rank);

  bool full() const { return candidates_.size() >= kMaxSymbols; }
  size_t size() const { return candidates_.size(); }
  SymbolTable build();

 private:
  struct Candidate {
    uint64_t start;
    const char* name;
    uint32_t name_size;
    uint32_t size;
    uint32_t limit;  // bytes from start
    uint16_t rank;
    uint16_t underscores;
  };

  std::vector<Candidate> candidates_;
};

}  // namespace lockscope
