#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <vector>

#include "base/result.h"
#include "capture/census.h"
#include "probe/census_probe.h"
#include "unwind/process_tables.h"
#include "unwind/user_walker.h"

namespace lockscope {

/// A program that a process runs: another one after exec, or where its PID was
/// used again.
struct ProgramId {
  uint64_t started_ns = 0;  ///< of the process, since boot
  uint64_t execs = 0;

  bool operator==(const ProgramId&) const = default;
};

/// A thread as it was seen last, and what was read of it then.
struct SeenThread {
  ls_census_thread thread{};
  ls_frames frames{};
  bool walked = false;
  bool still = false;  ///< it has not run since `thread` was read
  std::optional<FutexWait> wait;
  WordsAround around;
};

struct SeenProcess {
  pid_t pid = 0;
  ProgramId program;
  std::map<uint32_t, SeenThread> threads;  ///< by tid; never empty
};

/// Off the CPU until something comes, by what the kernel said.
bool is_asleep(const ls_census_thread& thread);
bool is_on_cpu(const ls_census_thread& thread);

/// Looks at the threads of processes without stopping them: the task iterator
/// says where each is, then its stack and the words that it waits on are read
/// from its memory, then the iterator says who ran meanwhile. Those are looked at
/// again; of the others all that was read was true at one moment, the last look.
class ThreadLooker {
 public:
  ThreadLooker(CensusProbe& probe, ProcessTables& tables, UnwindMemory& memory)
      : probe_(probe), tables_(tables), memory_(memory) {}

  /// Fails if one of the processes is gone, or does not stay one program.
  Result<std::vector<SeenProcess>> look(const std::vector<pid_t>& pids);

  uint64_t looks() const { return looks_; }              ///< the last look() took
  uint64_t duration_ns() const { return duration_ns_; }  ///< from its first to its last

  /// The program that a process runs now; none if it is gone.
  std::optional<ProgramId> program_of(pid_t pid);

 private:
  Result<SeenProcess> prepare(pid_t pid);
  Status ask(std::vector<SeenProcess>& processes);
  void read(SeenProcess& process);
  bool walk(pid_t pid, const MemoryReader& memory, SeenThread& seen);
  void walk_moving(SeenProcess& process);

  CensusProbe& probe_;
  ProcessTables& tables_;
  UnwindMemory& memory_;
  uint64_t looks_ = 0;
  uint64_t duration_ns_ = 0;
};

}  // namespace lockscope
