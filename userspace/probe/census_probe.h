#pragma once

#include <sys/types.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "census.h"

namespace lockscope {

/// Asks the kernel what the threads of a process are doing. They are not
/// stopped, and nothing runs in them.
class CensusProbe {
 public:
  /// Loads the variant that this kernel takes: some 10 ms. Errors: Unsupported.
  static Result<CensusProbe> open();

  CensusProbe(CensusProbe&&) noexcept;
  CensusProbe& operator=(CensusProbe&&) noexcept;
  ~CensusProbe();

  /// All threads of the process, by tid; none if it is gone. Takes under a
  /// millisecond for 1,000 threads (before 6.1: and for 1,000 of other processes).
  Result<std::vector<ls_census_thread>> threads(pid_t tgid);

  /// Takes off their `asleep_ns` what the clocks of their CPUs leave out: they have
  /// been asleep at least for what remains, and only for longer by what was left
  /// out meanwhile. 0.2 ms for each CPU that they were on last; we go there to see.
  void correct_times(std::span<ls_census_thread* const> threads);

  /// "modern" or "compat": see census.bpf.c.
  const std::string& variant() const;

 private:
  struct State;
  explicit CensusProbe(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace lockscope
