#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "symbolize/go_pclntab.h"
#include "unwind.h"
#include "unwind/byte_source.h"

namespace lockscope {

/// How to unwind Go code, from the stack depths in its table of functions:
/// frame pointers alone lose the callers of assembly without a frame, such as
/// runtime.futex. Go 1.18 and later.
class GoFrames {
 public:
  /// Nothing when the file has no such table.
  static std::optional<GoFrames> load(const ByteSource& source);

  uint64_t start() const { return start_; }  ///< linked address of the first function
  uint64_t end() const { return end_; }

  /// Calls `emit(address, rule)` for every address where the rule changes, in
  /// ascending order, from start() on. Work is linear in the size of the table.
  void run(const std::function<void(uint64_t, ls_unwind_rule)>& emit) const;

 private:
  explicit GoFrames(GoPclntab table) : table_(std::move(table)) {}

  GoPclntab table_;
  uint64_t start_ = 0;
  uint64_t end_ = 0;
};

}  // namespace lockscope
