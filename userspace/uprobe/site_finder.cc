#include "uprobe/site_finder.h"

#include <vector>

namespace lockscope {
namespace {

// glibc's largest, pthread_mutex_timedlock, has 700 with what it jumps to.
constexpr size_t kMaxInstructions = 20000;
// A prologue is shorter.
constexpr size_t kMaxStraight = 64;

// Where direct jumps from within the function go to.
struct Targets {
  std::set<uint64_t> addresses;
  bool complete = true;
};

Targets jump_targets(const Code& code, const FunctionCode& function) {
  Targets targets;
  const std::set<uint64_t> body = reachable(code, function, false);
  targets.complete = body.size() < kMaxInstructions;
  for (const uint64_t address : body) {
    const auto instruction = code.at(address);
    if (!instruction || instruction->target == 0 || instruction->flow == Flow::Call) continue;
    targets.addresses.insert(instruction->target);
  }
  return targets;
}

}  // namespace

std::set<uint64_t> reachable(const Code& code, const FunctionCode& function, bool through_calls) {
  const uint64_t end = function.entry + function.size;
  std::set<uint64_t> seen;
  std::vector<uint64_t> open{function.entry};
  while (!open.empty() && seen.size() < kMaxInstructions) {
    const uint64_t address = open.back();
    open.pop_back();
    if (seen.contains(address)) continue;
    const auto instruction = code.at(address);
    if (!instruction) continue;
    seen.insert(address);
    const Flow flow = instruction->flow;
    if (flow == Flow::Branch || flow == Flow::Jump || (flow == Flow::Call && through_calls)) {
      if (instruction->target != 0) open.push_back(instruction->target);
    }
    // What comes after the function's end, comes after a call that does not return.
    const bool goes_on = flow == Flow::Next || flow == Flow::Branch || flow == Flow::Call;
    if (goes_on && (function.size == 0 || instruction->end() != end)) {
      open.push_back(instruction->end());
    }
  }
  return seen;
}

std::vector<uint64_t> straight_path(const Code& code, uint64_t entry) {
  std::vector<uint64_t> path;
  uint64_t address = entry;
  while (path.size() < kMaxStraight) {
    const auto instruction = code.at(address);
    if (!instruction) break;
    path.push_back(address);
    if (instruction->flow == Flow::Jump) {
      address = instruction->target;
    } else if (instruction->flow == Flow::Next) {
      address = instruction->end();
    } else {
      break;
    }
  }
  return path;
}

Result<FoundSite> find_site(const Code& code, const FunctionCode& function, uint8_t arguments) {
  const uint64_t entry = function.entry;
  const Targets targets = jump_targets(code, function);
  if (!targets.complete) return failed("too large to be looked through");
  const bool loops_to_entry = targets.addresses.contains(entry);

  std::optional<FoundSite> stepped;
  bool tried = false;  // the last instruction tried to take the lock
  uint64_t address = entry;
  for (size_t n = 0; n < kMaxStraight; n++) {
    const auto here = code.at(address);
    if (!here) return failed("it has code that can't be decoded");
    if (address != entry && targets.addresses.contains(address)) break;
    const std::string where = address == entry ? "the entry" : "every call comes by, arguments intact";
    if (tried && here->flow == Flow::Branch && here->emulated) {
      return FoundSite{address, true, true, "once an attempt; the zero flag tells if it got the lock"};
    }
    if (here->probeable && !loops_to_entry) {
      if (here->emulated) return FoundSite{address, true, false, where};
      if (!stepped) {
        stepped = FoundSite{address, false, false, "no instruction that is emulated before an "
                                                   "argument is gone or paths part; " + where};
      }
    }
    tried = here->tries_lock;
    if (here->writes_arguments & arguments || here->flow != Flow::Next) break;
    address = here->end();
  }
  if (stepped) return *stepped;
  return failed(loops_to_entry ? "it jumps back to its entry"
                               : "no instruction that may be probed before paths part");
}

}  // namespace lockscope
