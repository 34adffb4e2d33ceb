#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "capture/census.h"
#include "diagnose/primitive.h"

namespace lockscope {

/// What a thread that sleeps in a futex call waits for, and for whom.
struct ThreadWait {
  bool known = false;     ///< it sleeps in one; all else says nothing if not
  Primitive primitive = Primitive::Unknown;
  bool is_lock = false;   ///< for something that another thread holds; else work, time, an end
  uint64_t address = 0;   ///< of the object, in the waiter's process
  std::string name;       ///< of the variable; empty if it is none
  bool timed = false;
  bool shared = false;    ///< between processes
  Index holder = kNone;   ///< thread that holds it; of Primitive::Join: that is to end
  /// Who took it last, by the lock's own word, and is none of the process's
  /// threads: nobody will release it. 0 if there is no such thing.
  int32_t lost_holder = 0;
};

/// One for each thread of the census. Holders are those that pthread mutexes and
/// rwlocks name (a writer), and locks whose word is their owner's tid; believed
/// only if they are threads of the census. Pure.
std::vector<ThreadWait> find_waits(const SymbolizedCensus& census);

}  // namespace lockscope
