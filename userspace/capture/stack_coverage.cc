#include "capture/stack_coverage.h"

namespace lockscope {

const char* why_incomplete(const Capture& capture, Index stack) {
  if (stack == kNone) return "not taken";
  const Stack& it = capture.stacks[stack];
  if (it.whole()) return nullptr;
  const auto has = [&](uint32_t flag) { return (it.flags & flag) != 0; };
  // What went wrong on the way says more than how it ended.
  if (has(LS_UNWIND_BUSY)) return "walker busy";
  if (has(LS_UNWIND_NO_TABLE)) return "code not known yet";
  if (has(LS_UNWIND_FP_GUESS)) return "code without unwind information";
  if (has(LS_UNWIND_TRUNCATED)) return "deeper than is kept";
  if (has(LS_UNWIND_BAD_RULE)) return "unwind rule not supported";
  if (has(LS_UNWIND_READ_FAULT)) return "stack memory not readable";
  if (has(LS_UNWIND_BAD_ADDRESS)) return "implausible address";
  return "broken off";
}

StackCoverage stack_coverage(const Capture& capture) {
  StackCoverage coverage;
  const auto add = [&](Index stack, const StackCoverage::Amount& amount) {
    const char* why = why_incomplete(capture, stack);
    for (StackCoverage::Amount* to :
         {&coverage.all, why ? &coverage.incomplete[why] : &coverage.whole}) {
      to->stacks += amount.stacks;
      to->waits += amount.waits;
      to->wait_ns += amount.wait_ns;
      to->releases += amount.releases;
    }
  };
  for (size_t i = 0; i < capture.stacks.size(); ++i) add(static_cast<Index>(i), {.stacks = 1});
  for (const WaitRow& row : capture.waits) {
    add(row.stack, {.waits = row.ended.count + row.in_flight, .wait_ns = row.total_ns()});
  }
  for (const ReleaseRow& row : capture.releases) {
    if (row.stack != kNone) add(row.stack, {.releases = row.count});
  }
  return coverage;
}

}  // namespace lockscope
