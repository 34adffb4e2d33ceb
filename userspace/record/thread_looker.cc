#include "record/thread_looker.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string>

#include "probe/futex_probe.h"

namespace lockscope {
namespace {

// Looks at threads that keep moving: each time only they are walked again, so
// that a look takes ever less time, down to that of the iterator alone.
constexpr uint64_t kMaxLooks = 5;
// Of processes that become another program just then.
constexpr int kMaxAttempts = 3;

// include/linux/sched.h: TASK_INTERRUPTIBLE and TASK_UNINTERRUPTIBLE.
constexpr uint32_t kAsleep = 1 | 2;

constexpr uint32_t kNoStack = LS_CENSUS_EXITING | LS_CENSUS_32_BIT | LS_CENSUS_KERNEL_ONLY;

// Whether it has not run between two looks: had it, it would have left the CPU
// once more.
bool stood_still(const ls_census_thread& before, const ls_census_thread& now) {
  return !is_on_cpu(before) && !is_on_cpu(now) && before.switches == now.switches &&
         before.call == now.call && std::memcmp(&before.regs, &now.regs, sizeof now.regs) == 0 &&
         std::memcmp(before.args, now.args, sizeof now.args) == 0;
}

void read_around(const MemoryReader& read, const FutexWait& wait, WordsAround& out) {
  constexpr uint64_t kBefore = WordsAround::kBefore * sizeof(uint32_t);
  out.known = wait.word > kBefore && read(out.words.data(), sizeof out.words, wait.word - kBefore);
  if (out.known) return;
  // Perhaps at the edge of a mapping: the futex word itself can always be read.
  out.words = {};
  out.known = read(&out.words[WordsAround::kBefore], sizeof(uint32_t), wait.word);
}

// futex_waitv: in the name of its first word.
void read_first_element(const MemoryReader& read, FutexWait& wait) {
  struct {
    uint64_t value, address;
    uint32_t flags, reserved;
  } first{};  // struct futex_waitv
  if (wait.elements == 0 || !read(&first, sizeof first, wait.word)) return;
  wait.word = first.address;
  wait.value = static_cast<uint32_t>(first.value);
  wait.shared = !(first.flags & 128 /* FUTEX_PRIVATE_FLAG */);
}

void read_wait(const MemoryReader& memory, SeenThread& seen) {
  if (!seen.wait) return;
  // Once: from then on it has the word's own address.
  if (seen.wait->elements != 0 && !seen.around.known) read_first_element(memory, *seen.wait);
  read_around(memory, *seen.wait, seen.around);
}

ProgramId program_id(const ls_census_thread& thread) { return {thread.started_ns, thread.execs}; }

bool is_one_program(const SeenProcess& process) {
  return std::all_of(process.threads.begin(), process.threads.end(), [&](const auto& one) {
    return program_id(one.second.thread) == process.program;
  });
}

// Whether another look can tell more. Those on a CPU would have to leave it just
// then; they are what they are: running.
bool is_unsettled(const SeenProcess& process) {
  return std::any_of(process.threads.begin(), process.threads.end(), [](const auto& one) {
    const SeenThread& seen = one.second;
    return !seen.still && !is_on_cpu(seen.thread) && !(seen.thread.flags & kNoStack);
  });
}

// Ahead of all others for as long as it lives: on a machine whose CPUs are all
// busy a look at 1,000 threads takes 11 ms instead of 40 to 100.
class Hurry {
 public:
  Hurry() { ::setpriority(PRIO_PROCESS, 0, -20); }
  ~Hurry() { ::setpriority(PRIO_PROCESS, 0, before_); }
  Hurry(const Hurry&) = delete;
  Hurry& operator=(const Hurry&) = delete;

 private:
  int before_ = ::getpriority(PRIO_PROCESS, 0);
};

Error gone(pid_t pid) { return failed("process " + std::to_string(pid) + " has ended"); }

}  // namespace

bool is_on_cpu(const ls_census_thread& thread) { return thread.flags & LS_CENSUS_ON_CPU; }

bool is_asleep(const ls_census_thread& thread) {
  return !is_on_cpu(thread) && (thread.state & kAsleep) != 0;
}

std::optional<ProgramId> ThreadLooker::program_of(pid_t pid) {
  const auto threads = probe_.threads(pid);
  if (!threads || threads->empty()) return {};
  return program_id(threads->front());
}

Result<std::vector<SeenProcess>> ThreadLooker::look(const std::vector<pid_t>& pids) {
  for (int attempt = 0; attempt < kMaxAttempts; attempt++) {
    std::vector<SeenProcess> processes;
    for (const pid_t pid : pids) {
      auto process = prepare(pid);
      if (!process) return process.error();
      processes.push_back(std::move(*process));
    }
    const Hurry hurry;
    looks_ = 0;
    const uint64_t began_ns = monotonic_ns();
    if (Status first = ask(processes); !first.ok()) return first.error();
    do {
      for (SeenProcess& process : processes) read(process);
      if (Status again = ask(processes); !again.ok()) return again.error();
    } while (looks_ < kMaxLooks && std::any_of(processes.begin(), processes.end(), is_unsettled));
    duration_ns_ = monotonic_ns() - began_ns;
    for (SeenProcess& process : processes) walk_moving(process);
    if (std::all_of(processes.begin(), processes.end(), is_one_program)) return processes;
  }
  return failed("the process keeps becoming another program");
}

// Tables can take their time, so they are made before.
Result<SeenProcess> ThreadLooker::prepare(pid_t pid) {
  const auto threads = probe_.threads(pid);
  if (!threads) return threads.error();
  if (threads->empty()) return gone(pid);
  // Without tables, frame pointers lead on, and the stacks say so.
  (void)tables_.add_process(pid).ok();
  return SeenProcess{.pid = pid, .program = program_id(threads->front())};
}

Status ThreadLooker::ask(std::vector<SeenProcess>& processes) {
  looks_++;
  for (SeenProcess& process : processes) {
    const auto threads = probe_.threads(process.pid);
    if (!threads) return threads.error();
    if (threads->empty()) return gone(process.pid);
    std::set<uint32_t> there;
    for (const ls_census_thread& thread : *threads) {
      there.insert(thread.tid);
      SeenThread& seen = process.threads[thread.tid];
      seen.still = seen.walked && stood_still(seen.thread, thread);
      if (seen.still) {
        seen.thread.asleep_ns = thread.asleep_ns;
        continue;
      }
      seen = SeenThread{.thread = thread};
      if (is_asleep(thread)) {
        std::array<uint64_t, 6> args;
        std::copy(std::begin(thread.args), std::end(thread.args), args.begin());
        seen.wait = decode_futex_wait(thread.call, args);
      }
    }
    std::erase_if(process.threads, [&](const auto& one) { return !there.contains(one.first); });
  }
  return {};
}

// The stacks of those that have moved, and all words that are waited on: what is
// read of them all was then true at once, if nobody moves until the next look.
void ThreadLooker::read(SeenProcess& process) {
  const MemoryReader memory = process_memory(process.pid);
  bool new_code = false;
  for (auto& [tid, seen] : process.threads) {
    if (!seen.walked && !is_on_cpu(seen.thread)) new_code |= !walk(process.pid, memory, seen);
    read_wait(memory, seen);
  }
  // Loaded since the tables were made.
  if (!new_code || !tables_.add_process(process.pid).ok()) return;
  for (auto& [tid, seen] : process.threads) {
    if (seen.frames.flags & LS_UNWIND_NO_TABLE) (void)walk(process.pid, memory, seen);
  }
}

// False if it led into code that is not known.
bool ThreadLooker::walk(pid_t pid, const MemoryReader& memory, SeenThread& seen) {
  seen.walked = true;
  if ((seen.thread.flags & kNoStack) || seen.thread.regs.ip == 0) return true;
  seen.frames = UserWalker(memory_).walk(pid, seen.thread.regs, memory);
  return !(seen.frames.flags & LS_UNWIND_NO_TABLE);
}

// Those that ran in every look, as far as it can be said of them.
void ThreadLooker::walk_moving(SeenProcess& process) {
  const MemoryReader memory = process_memory(process.pid);
  for (auto& [tid, seen] : process.threads) {
    if (seen.walked) continue;
    (void)walk(process.pid, memory, seen);
    read_wait(memory, seen);
  }
}

}  // namespace lockscope
