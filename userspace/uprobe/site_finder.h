#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "uprobe/instruction.h"

namespace lockscope {

/// A function's code, as its symbol has it. What lies elsewhere (".cold" parts) it
/// jumps to.
struct FunctionCode {
  uint64_t entry = 0;
  uint64_t size = 0;  ///< 0: not known
};

/// Where in a function a uprobe costs least and still sees every call once, with
/// its arguments in their registers.
struct FoundSite {
  uint64_t address = 0;
  bool emulated = false;
  /// The zero flag says, there, whether the lock was taken; the site is passed
  /// once an attempt.
  bool outcome_in_zero_flag = false;
  std::string reason;  ///< why this one
};

/// Looks straight on from the entry: what is passed by every call, once. Stops
/// where another path joins. `arguments`: bits of those that must be intact.
/// Fails with the reason if there is no safe site.
Result<FoundSite> find_site(const Code& code, const FunctionCode& function, uint8_t arguments);

/// All addresses of instructions that a function can get to by direct jumps and
/// calls, as far as a bound on their number.
std::set<uint64_t> reachable(const Code& code, const FunctionCode& function, bool through_calls);

/// The instructions that every call passes first, through unconditional jumps into
/// other functions: what comes there, comes here.
std::vector<uint64_t> straight_path(const Code& code, uint64_t entry);

}  // namespace lockscope
