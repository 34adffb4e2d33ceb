#include "record/held_objects.h"

#include <algorithm>

namespace lockscope {
namespace {

// Whether the thread slept, at that time, for what it had asked for last. It may have
// woken since.
bool still_waits(const ls_pthread& thread, const ls_thread* asleep, uint64_t at_ns) {
  if (!asleep || (asleep->phase == LS_PHASE_WAITING) != (asleep->since_ns < at_ns)) return false;
  const auto near = [&](uint64_t object) {
    return object != 0 && asleep->word - object < LS_OBJECT_BYTES;
  };
  return near(thread.pending) || near(thread.pending_cond);
}

}  // namespace

std::vector<HeldObject> held_objects(
    const RawTables::Table<uint32_t, ls_pthread>& threads, uint32_t slice, uint64_t stop_ns,
    const std::function<const ls_thread*(uint32_t tid)>& futex_thread) {
  std::vector<HeldObject> all;
  for (const auto& [tid, thread] : threads) {
    if (thread.slice != slice || thread.n == 0) continue;
    const bool waits = still_waits(thread, futex_thread(tid), stop_ns);
    for (uint32_t i = 0; i < std::min<uint32_t>(thread.n, LS_MAX_ACQUIRED); i++) {
      const ls_acquired& held = thread.held[i];
      if (held.flags & LS_ACQUIRED_MAYBE || (waits && held.address == thread.pending)) continue;
      if (held.since_ns >= stop_ns) continue;
      all.push_back({thread.process, held.address, held.since_ns});
    }
  }
  return all;
}

}  // namespace lockscope
