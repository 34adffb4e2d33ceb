#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "unwind/unwind_memory.h"

namespace lockscope {

/// A run of words in the pool; never crosses a segment.
struct PoolExtent {
  uint32_t index = 0;
  uint32_t words = 0;
};

/// Hands out the pool in chunks of 4 KiB, and the table of rules by number.
/// What is given back becomes free only after a grace period, since walks may
/// still read it.
class UnwindPool {
 public:
  /// `max_segments`: how far the pool may grow, in MiB.
  UnwindPool(UnwindMemory& memory, uint32_t max_segments);

  UnwindMemory& memory() { return memory_; }

  /// Words in one segment, from the first place where they fit. Fails when the
  /// pool may not grow further, or the kernel has no memory.
  Result<PoolExtent> allocate(uint32_t words);
  void free(PoolExtent extent);

  /// The memory of an extent, or nullptr. Valid until memory().release().
  uint32_t* words(PoolExtent extent);

  /// The number of a rule, shared by all who ask for the same. When all are
  /// taken: 0, the rule that says "unsupported".
  uint16_t add_rule(ls_unwind_rule rule);
  void drop_rule(uint16_t number);

  /// Makes what was given back free. Waits for a grace period (about 20 ms in
  /// the kernel) if there is anything.
  void reclaim();
  bool has_garbage() const { return !garbage_.empty() || !garbage_rules_.empty(); }

  uint64_t used_bytes() const { return uint64_t{used_chunks_} * kChunkWords * 4; }
  uint64_t total_bytes() const { return uint64_t{segments_.size()} * LS_POOL_SEGMENT_BYTES; }
  size_t rules() const { return numbers_.size(); }

 private:
  static constexpr uint32_t kChunkWords = 1024;
  static constexpr uint32_t kChunks = LS_POOL_SEGMENT_WORDS / kChunkWords;

  std::optional<uint32_t> find_room(uint32_t chunks) const;

  UnwindMemory& memory_;
  uint32_t max_segments_;
  std::vector<std::bitset<kChunks>> segments_;  // set: taken
  uint32_t used_chunks_ = 0;
  std::vector<PoolExtent> garbage_;

  std::unordered_map<uint64_t, uint16_t> numbers_;
  std::vector<uint32_t> rule_users_;
  std::vector<uint16_t> free_rules_;
  std::vector<uint16_t> garbage_rules_;
};

}  // namespace lockscope
