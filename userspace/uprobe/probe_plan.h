#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pthread_tier.h"

namespace lockscope {

/// Whose objects the functions work on.
enum class Libc : uint8_t { Unknown = 0, Glibc = LS_LIBC_GLIBC, Musl = LS_LIBC_MUSL };

const char* to_string(Libc libc);

/// An instruction at which a call is seen: each one once, with the arguments in
/// their registers.
struct ProbeSite {
  ls_call call = LS_CALL_MUTEX_LOCK;
  std::string function;       ///< with its symbol version, if it has one
  uint64_t function_address = 0;
  uint64_t address = 0;
  uint64_t file_offset = 0;
  bool emulated = false;      ///< costs 0.6 µs a hit; otherwise 11
  bool outcome_in_zero_flag = false;  ///< spin locks: set if the lock was taken
  std::string instruction;
  std::string reason;
};

/// A function without a site.
struct UnprobedFunction {
  std::string function;
  std::string reason;
};

/// Where to place uprobes in a file.
struct ProbePlan {
  Libc libc = Libc::Unknown;
  std::vector<ProbeSite> sites;
  std::vector<UnprobedFunction> unprobed;
};

}  // namespace lockscope
