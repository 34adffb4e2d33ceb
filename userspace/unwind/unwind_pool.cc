#include "unwind/unwind_pool.h"

#include <algorithm>
#include <bit>

namespace lockscope {
namespace {

constexpr ls_unwind_rule kUnsupported{LS_CFA_UNSUPPORTED, 0, 0, 0};

}  // namespace

UnwindPool::UnwindPool(UnwindMemory& memory, uint32_t max_segments)
    : memory_(memory), max_segments_(std::min<uint32_t>(max_segments, LS_POOL_MAX_SEGMENTS)) {
  if (ls_unwind_rule* rules = memory_.rules()) rules[0] = kUnsupported;
  rule_users_.push_back(1);
  numbers_.emplace(std::bit_cast<uint64_t>(kUnsupported), 0);
}

std::optional<uint32_t> UnwindPool::find_room(uint32_t chunks) const {
  for (uint32_t s = 0; s < segments_.size(); ++s) {
    uint32_t run = 0;
    for (uint32_t c = 0; c < kChunks; ++c) {
      run = segments_[s][c] ? 0 : run + 1;
      if (run == chunks) return s * kChunks + c + 1 - chunks;
    }
  }
  return {};
}

Result<PoolExtent> UnwindPool::allocate(uint32_t words) {
  if (words == 0 || words > LS_POOL_SEGMENT_WORDS) return failed("unwind table too large");
  const uint32_t chunks = (words + kChunkWords - 1) / kChunkWords;
  auto room = find_room(chunks);
  if (!room && has_garbage()) {
    reclaim();
    room = find_room(chunks);
  }
  if (!room) {
    if (segments_.size() >= max_segments_) return failed("unwind tables are at their limit");
    if (auto status = memory_.add_segment(); !status) return status.error();
    segments_.emplace_back();
    room = (static_cast<uint32_t>(segments_.size()) - 1) * kChunks;
  }
  for (uint32_t c = 0; c < chunks; ++c) segments_[*room / kChunks].set(*room % kChunks + c);
  used_chunks_ += chunks;
  return PoolExtent{*room * kChunkWords, words};
}

void UnwindPool::free(PoolExtent extent) { garbage_.push_back(extent); }

uint32_t* UnwindPool::words(PoolExtent extent) {
  uint32_t* segment = memory_.segment(extent.index >> LS_POOL_SEGMENT_SHIFT);
  return segment ? segment + (extent.index & (LS_POOL_SEGMENT_WORDS - 1)) : nullptr;
}

uint16_t UnwindPool::add_rule(ls_unwind_rule rule) {
  const uint64_t bits = std::bit_cast<uint64_t>(rule);
  if (const auto known = numbers_.find(bits); known != numbers_.end()) {
    ++rule_users_[known->second];
    return known->second;
  }
  ls_unwind_rule* rules = memory_.rules();
  uint16_t number = 0;
  if (!rules) return 0;
  if (!free_rules_.empty()) {
    number = free_rules_.back();
    free_rules_.pop_back();
  } else if (rule_users_.size() < LS_UNWIND_MAX_RULES) {
    number = static_cast<uint16_t>(rule_users_.size());
    rule_users_.push_back(0);
  } else {
    return 0;
  }
  rules[number] = rule;
  rule_users_[number] = 1;
  numbers_.emplace(bits, number);
  return number;
}

void UnwindPool::drop_rule(uint16_t number) {
  if (number == 0 || --rule_users_[number] > 0) return;
  if (const ls_unwind_rule* rules = memory_.rules())
    numbers_.erase(std::bit_cast<uint64_t>(rules[number]));
  garbage_rules_.push_back(number);
}

void UnwindPool::reclaim() {
  if (!has_garbage()) return;
  memory_.wait_for_walks();
  for (const PoolExtent& extent : garbage_) {
    const uint32_t first = extent.index / kChunkWords;
    const uint32_t chunks = (extent.words + kChunkWords - 1) / kChunkWords;
    for (uint32_t c = 0; c < chunks; ++c)
      segments_[first / kChunks].reset(first % kChunks + c);
    used_chunks_ -= chunks;
  }
  garbage_.clear();
  free_rules_.insert(free_rules_.end(), garbage_rules_.begin(), garbage_rules_.end());
  garbage_rules_.clear();
}

}  // namespace lockscope
