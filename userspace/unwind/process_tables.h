#pragma once

#include <chrono>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "process/maps.h"
#include "unwind/table_store.h"
#include "unwind/unwind_memory.h"

namespace lockscope {

/// Lets the walker walk the stacks of processes: finds their code, has tables
/// built for it, and publishes both.
///
/// One thread at a time. Costs 0.2 ms for a process with 22 mappings whose
/// tables are there; see TableStore for those that are not.
class ProcessTables {
 public:
  using Clock = std::chrono::steady_clock;

  /// Of the 64 MB that kernel tables may take; the others have 40 (bpf/maps.bpf.h).
  static constexpr uint32_t kMaxPoolMegabytes = 24;

  ProcessTables(UnwindMemory& memory, BuildTable build,
                uint32_t max_megabytes = kMaxPoolMegabytes);

  /// Reads the process's mappings (again) and publishes tables for them. Fails
  /// only if the process can't be read or there is no room for its list;
  /// mappings without tables are published as such and counted.
  Status add_process(pid_t tgid) { return scan(tgid, false); }
  void remove_process(pid_t tgid);
  bool knows(pid_t tgid) const { return processes_.contains(tgid); }

  /// Serves what the kernel asked for (processes and mappings that it met and
  /// did not know), forgets processes that are gone, reuses memory. To be called
  /// every 50 ms or so; costs a few µs when there is nothing to do. Processes
  /// whose mappings turn out unchanged are looked at less and less often (code
  /// made at run time has no file and never will).
  void poll(KernelUnwindMemory& kernel);

  struct Stats {
    size_t processes = 0;
    size_t files = 0;
    size_t tables = 0;                 ///< fewer: copies of one file share theirs
    size_t rules = 0;
    uint64_t pool_bytes = 0;           ///< taken from the kernel
    uint64_t used_bytes = 0;           ///< of it in use
    uint64_t tables_evicted = 0;       ///< to make room for others
    uint64_t tables_refused = 0;       ///< no room
    uint64_t mappings_without_table = 0;  ///< with a file, but no unwind information or no room
    uint64_t mappings_dropped = 0;     ///< beyond LS_UNWIND_MAX_MAPPINGS
  };
  Stats stats() const;

 private:
  struct Process {
    uint64_t start_stack = 0;
    uint64_t exec_pages = 0;  // see struct ls_unwind_process
    std::vector<ls_unwind_mapping> mappings;
    std::vector<const StoredTable*> tables;  // of mappings, nullptr for none
    PoolExtent extent;
    Clock::time_point published;
    Clock::time_point next_scan;
    Clock::duration backoff{};
  };

  /// `doubted`: the kernel found that what was published does not hold.
  Status scan(pid_t tgid, bool doubted);
  void collect(pid_t tgid, const std::vector<Mapping>& maps, Process& process);
  Result<const StoredTable*> table_of(pid_t tgid, const Mapping& mapping);
  Status publish(pid_t tgid, Process& process);
  void forget_table(const StoredTable& table);
  void sweep();

  UnwindPool pool_;
  TableStore store_;
  std::unordered_map<pid_t, Process> processes_;
  Clock::time_point next_sweep_;
  uint64_t without_table_ = 0;
  uint64_t dropped_ = 0;
};

}  // namespace lockscope
