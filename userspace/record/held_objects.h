#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "record/raw_tables.h"

namespace lockscope {

/// A lock that a thread has.
struct HeldObject {
  uint64_t process = 0;
  uint64_t address = 0;
  uint64_t since_ns = 0;
};

/// What the threads of the pthread tier have at the end of a slice: not attempts, of
/// which the outcome is not known, nor what they still sleep for. `futex_thread` finds a
/// thread of the futex tier by its tid, or nothing; read soon after `stop_ns`.
std::vector<HeldObject> held_objects(
    const RawTables::Table<uint32_t, ls_pthread>& threads, uint32_t slice, uint64_t stop_ns,
    const std::function<const ls_thread*(uint32_t tid)>& futex_thread);

}  // namespace lockscope
