#include "record/census.h"

#include <sys/utsname.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <map>

#include "probe/census_probe.h"
#include "record/process_info.h"
#include "record/target.h"
#include "record/thread_looker.h"
#include "unwind/process_tables.h"

namespace lockscope {
namespace {

// include/linux/sched.h: TASK_INTERRUPTIBLE and so on.
constexpr uint32_t kInterruptible = 1, kUninterruptible = 2, kStoppedOrTraced = 4 | 8;

ThreadState state_of(const ls_census_thread& thread) {
  if (thread.flags & LS_CENSUS_EXITING) return ThreadState::Ended;
  if (is_on_cpu(thread)) return ThreadState::Running;
  if (thread.state & kInterruptible) return ThreadState::Sleeping;
  if (thread.state & kUninterruptible) return ThreadState::DiskSleep;
  if (thread.state & kStoppedOrTraced) return ThreadState::Stopped;
  return thread.state == 0 ? ThreadState::Runnable : ThreadState::Other;
}

// Puts what was seen into a capture: processes, stacks and words once each.
class Gatherer {
 public:
  explicit Gatherer(Census& census) : census_(census) {}

  void add(const SeenProcess& seen, Process process) {
    const auto maps = read_maps(seen.pid);
    maps_ = maps ? *maps : std::vector<Mapping>{};
    process.threads = static_cast<uint32_t>(seen.threads.size());
    process_ = static_cast<Index>(capture().processes.size());
    capture().processes.push_back(std::move(process));
    stacks_.clear();
    for (const auto& [tid, thread] : seen.threads) census_.threads.push_back(thread_of(thread));
  }

 private:
  Capture& capture() { return census_.capture; }

  CensusThread thread_of(const SeenThread& seen) {
    const ls_census_thread& from = seen.thread;
    CensusThread thread;
    thread.process = process_;
    thread.tid = static_cast<int32_t>(from.tid);
    thread.inner_tid = static_cast<int32_t>(from.inner_tid);
    thread.comm.assign(from.comm, ::strnlen(from.comm, sizeof from.comm));
    thread.state = state_of(from);
    if (is_asleep(from) && from.call >= 0) {
      thread.call = from.call;
      thread.call_name = system_call_name(from.call);
    }
    thread.asleep_ns = from.asleep_ns;
    thread.ending = from.ending;
    thread.still = seen.still;
    if (from.flags & LS_CENSUS_32_BIT) thread.taken = StackTaken::Is32Bit;
    if (seen.frames.n > 0) {
      thread.stack = stack_of(seen.frames);
      thread.taken = seen.still        ? StackTaken::Still
                     : is_asleep(from) ? StackTaken::Moved
                                       : StackTaken::LastEntry;
    }
    thread.wait = seen.wait;
    thread.around = seen.around;
    if (seen.wait) thread.lock = lock_of(*seen.wait);
    return thread;
  }

  Index stack_of(const ls_frames& frames) {
    Stack stack{.process = process_, .flags = frames.flags};
    stack.addresses.assign(frames.ips, frames.ips + std::min<uint32_t>(frames.n, LS_UNWIND_MAX_FRAMES));
    const auto [known, is_new] = stacks_.try_emplace({stack.flags, stack.addresses},
                                                     static_cast<Index>(capture().stacks.size()));
    if (is_new) capture().stacks.push_back(std::move(stack));
    return known->second;
  }

  // As the kernel tells futexes apart: bpf/lock_key.bpf.h.
  Index lock_of(const FutexWait& wait) {
    Lock lock;
    lock.process = process_;
    lock.address = wait.word;
    const Mapping* mapping = wait.shared ? find_mapping(maps_, wait.word) : nullptr;
    if (mapping && mapping->shared && mapping->inode != 0) {
      lock.shared = true;
      lock.inode = mapping->inode;
      lock.device = mapping->dev_major << 20 | mapping->dev_minor;  // the kernel's MKDEV()
      lock.file_offset = mapping->file_offset + wait.word - mapping->start;
    }
    const auto key = lock.shared ? LockKey{true, lock.device, lock.inode, lock.file_offset}
                                 : LockKey{false, process_, 0, lock.address};
    const auto [known, is_new] = locks_.try_emplace(key, static_cast<Index>(capture().locks.size()));
    if (is_new) capture().locks.push_back(lock);
    Lock& it = capture().locks[known->second];
    it.id = known->second + 1;
    it.traits |= wait_traits(wait);
    it.waiter_threads++;
    return known->second;
  }

  using LockKey = std::tuple<bool, uint64_t, uint64_t, uint64_t>;

  Census& census_;
  std::vector<Mapping> maps_;
  Index process_ = kNone;
  std::map<std::pair<uint32_t, std::vector<uint64_t>>, Index> stacks_;
  std::map<LockKey, Index> locks_;
};

// No two processes of ours have the same: what LS_PROCESS_TGID says holds.
uint64_t process_id(const SeenProcess& process) {
  const auto generation =
      static_cast<uint32_t>(process.program.started_ns ^ process.program.execs << 24);
  return static_cast<uint64_t>(process.pid) << 32 | generation;
}

void describe(Census& census, const std::vector<pid_t>& pids) {
  utsname name {};
  if (::uname(&name) == 0) {
    census.capture.host = name.nodename;
    census.capture.kernel = name.release;
  }
  Target target;
  target.pids = pids;
  census.capture.target = target.describe();
  timespec now {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  census.capture.start_unix_ns = static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
}

// Files are read after the look; not those of a program that came since.
Process describe_process(const SeenProcess& seen, ProcessTable& names, ThreadLooker& looker) {
  const uint64_t id = process_id(seen);
  names.meet(id, [] {});
  const auto known = names.processes().find(id);
  if (known == names.processes().end() || looker.program_of(seen.pid) != seen.program) {
    return {.id = id, .pid = seen.pid};
  }
  return known->second;
}

Result<std::vector<pid_t>> resolve(const std::vector<pid_t>& pids) {
  std::vector<pid_t> processes;
  for (const pid_t pid : pids) {
    auto process = resolve_pid(pid);
    if (!process) return process.error();
    if (std::find(processes.begin(), processes.end(), *process) == processes.end()) {
      processes.push_back(*process);
    }
  }
  return processes;
}

}  // namespace

Result<Census> take_census(const std::vector<pid_t>& pids, FileParser& parser,
                           Symbolizer& symbolizer) {
  const auto processes = resolve(pids);
  if (!processes) return processes.error();
  auto probe = CensusProbe::open();
  if (!probe) return probe.error();
  LocalUnwindMemory memory;
  ProcessTables tables(memory, [&parser](int fd) { return parser.unwind_table(fd); });
  ThreadLooker looker(*probe, tables, memory);
  Census census;
  describe(census, *processes);
  auto seen = looker.look(*processes);
  if (!seen) return seen.error();
  census.looks = looker.looks();
  census.capture.duration_ns = looker.duration_ns();

  std::vector<ls_census_thread*> threads;
  for (SeenProcess& process : *seen) {
    for (auto& [tid, one] : process.threads) threads.push_back(&one.thread);
  }
  probe->correct_times(threads);

  ProcessTable names(parser, symbolizer);
  Gatherer gatherer(census);
  for (const SeenProcess& process : *seen) {
    gatherer.add(process, describe_process(process, names, looker));
  }
  return census;
}

}  // namespace lockscope
