// Samples running programs with the walker in the kernel and walks every
// sampled stack again, from a copy: with the same walker in user space, which
// must agree in everything, and with elfutils, which must find the same frames.
//
//   unwind_bpf_test OBJECT SECONDS -- COMMAND...   samples the command
//   unwind_bpf_test OBJECT cost -- COMMAND...      times COMMAND bare, with a
//                                                  counting probe and with a walk
//
// COMMAND for the cost is futex_cost_workload DEPTH CALLS. run.sh does it all.
//
// Needs root. Exit code 77: not possible here.

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "oracle.h"
#include "sample.h"
#include "tracepoint_id.h"
#include "unwind/process_tables.h"
#include "unwind/user_walker.h"

using namespace lockscope;
using Clock = std::chrono::steady_clock;

namespace {

constexpr int kNotHere = 77;

struct Totals {
  uint64_t samples = 0;
  uint64_t frames = 0;
  uint64_t complete = 0;
  uint64_t truncated = 0;
  uint64_t guessed = 0;
  uint64_t broken = 0;
  uint64_t compared = 0;      // with elfutils
  uint64_t same = 0;
  uint64_t oracle_short = 0;  // elfutils gave up first; as far as it went, the same
  uint64_t oracle_wrong = 0;  // elfutils' frame is not even code
  uint64_t ours_short = 0;    // we gave up first, and said so
  uint64_t different = 0;
  uint64_t user_differs = 0;  // kernel and user space walkers disagree
  std::map<std::string, uint64_t> reasons;
};

std::string describe(const ls_frames& f) {
  static const char* const kNames[] = {"complete", "truncated", "no-table",    "broken", "guess",
                                       "fault",    "bad-rule",  "bad-address", "busy"};
  std::string text;
  for (int bit = 0; bit < 9; ++bit)
    if (f.flags >> bit & 1) text += std::string(text.empty() ? "" : "+") + kNames[bit];
  return text.empty() ? "nothing" : text;
}

class Checker {
 public:
  Checker(pid_t pid, ProcessTables& tables, UnwindMemory& memory)
      : pid_(pid), tables_(tables), walker_(memory), oracle_(pid) {}

  void check(const sample& s) {
    Totals& t = totals[s.kind];
    ++t.samples;
    t.frames += s.frames.n;
    if (s.frames.flags & LS_UNWIND_COMPLETE) ++t.complete;
    if (s.frames.flags & LS_UNWIND_TRUNCATED) ++t.truncated;
    if (s.frames.flags & LS_UNWIND_FP_GUESS) ++t.guessed;
    if (s.frames.flags & LS_UNWIND_BROKEN) ++t.broken;
    ++t.reasons[describe(s.frames)];

    const auto word = [&](uint64_t address, uint64_t* value) {
      if (address < s.stack_start || address + 8 > s.stack_start + s.stack_bytes) return false;
      std::memcpy(value, s.stack + (address - s.stack_start), 8);
      return true;
    };
    const MemoryReader bytes = [&](void* to, size_t n, uint64_t address) {
      if (address < s.stack_start || address + n > s.stack_start + s.stack_bytes) {
        // Beyond the copy: the stack is deep. The walk in the kernel went on.
        return false;
      }
      std::memcpy(to, s.stack + (address - s.stack_start), n);
      return true;
    };
    const ls_user_regs regs{s.regs[16], s.regs[19], s.regs[4]};
    const ls_frames again = walker_.walk(static_cast<pid_t>(s.tgid), regs, bytes);
    // The copy may end before the stack does (deep, or a signal handler's own):
    // then what there is must agree.
    const bool ran_out = again.flags & LS_UNWIND_READ_FAULT;
    if ((again.n != s.frames.n && !(ran_out && again.n < s.frames.n)) ||
        std::memcmp(again.ips, s.frames.ips, std::min(again.n, s.frames.n) * 8) != 0)
      ++t.user_differs;

    if (!oracle_.ok()) return;
    // DWARF column <- index in struct pt_regs
    static constexpr int kColumns[17] = {10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16};
    uint64_t columns[17];
    for (int i = 0; i < 17; ++i) columns[i] = s.regs[kColumns[i]];
    auto expected = oracle_.unwind(columns, word);
    ++t.compared;
    const size_t n = std::min<size_t>(expected.size(), s.frames.n);
    for (size_t i = 0; i < n; ++i) {
      if (expected[i] == s.frames.ips[i]) continue;
      if (!is_code(expected[i]) || (i == 1 && after_sigreturn(s.frames.ips[0]))) {
        ++t.oracle_wrong;
        return;
      }
      ++t.different;
      complain(s, expected, i);
      return;
    }
    if (expected.size() == s.frames.n) {
      ++t.same;
    } else if (expected.size() < s.frames.n) {
      ++t.oracle_short;
    } else if (s.frames.flags & (LS_UNWIND_BROKEN | LS_UNWIND_TRUNCATED)) {
      ++t.ours_short;
      if (t.ours_short <= 3) complain(s, expected, n);
    } else {
      ++t.different;
      complain(s, expected, n);
    }
  }

  Totals totals[2];

 private:
  /// Whether the thread is in rt_sigreturn(2): the pc is then past the
  /// trampoline's last byte, where elfutils has no entry and makes do.
  bool after_sigreturn(uint64_t pc) const {
    constexpr uint8_t kTrampoline[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
    uint8_t code[sizeof kTrampoline];
    return process_memory(pid_)(code, sizeof code, pc - sizeof code) &&
           std::memcmp(code, kTrampoline, sizeof code) == 0;
  }

  bool is_code(uint64_t address) const {
    auto maps = read_maps(pid_);
    if (!maps) return true;
    const Mapping* mapping = find_mapping(*maps, address);
    return mapping && mapping->executable;
  }

  void complain(const sample& s, const std::vector<uint64_t>& expected, size_t at) {
    if (++complaints_ > 8) return;
    std::printf("  differs at frame %zu (%s, ours %u, elfutils %zu):\n", at,
                describe(s.frames).c_str(), s.frames.n, expected.size());
    auto maps = read_maps(pid_);
    const size_t from = at > 1 ? at - 1 : 0;
    for (size_t i = from; i < at + 2; ++i) {
      const uint64_t ours = i < s.frames.n ? s.frames.ips[i] : 0;
      const uint64_t theirs = i < expected.size() ? expected[i] : 0;
      const Mapping* m = maps ? find_mapping(*maps, ours) : nullptr;
      std::printf("    %2zu %16lx %16lx %s+%lx\n", i, ours, theirs, m ? m->path.c_str() : "?",
                  m ? ours - m->start + m->file_offset : 0);
    }
  }

  pid_t pid_;
  ProcessTables& tables_;
  UserWalker walker_;
  testing::Oracle oracle_;
  int complaints_ = 0;
};

int open_event(perf_event_attr& attr, pid_t pid, int cpu) {
  attr.size = sizeof attr;
  return static_cast<int>(::syscall(SYS_perf_event_open, &attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC));
}

std::vector<UniqueFd> attach_tracepoint(bpf_program* program, int id) {
  perf_event_attr attr{};
  attr.type = PERF_TYPE_TRACEPOINT;
  attr.config = static_cast<uint64_t>(id);
  attr.sample_period = 1;
  std::vector<UniqueFd> fds;
  UniqueFd fd(open_event(attr, -1, 0));
  if (!fd || ::ioctl(fd.get(), PERF_EVENT_IOC_SET_BPF, bpf_program__fd(program)) != 0 ||
      ::ioctl(fd.get(), PERF_EVENT_IOC_ENABLE, 0) != 0)
    return fds;
  fds.push_back(std::move(fd));
  return fds;
}

std::vector<UniqueFd> attach_clock(bpf_program* program, uint64_t hz) {
  perf_event_attr attr{};
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_CPU_CLOCK;
  attr.freq = 1;
  attr.sample_freq = hz;
  std::vector<UniqueFd> fds;
  for (int cpu = 0; cpu < libbpf_num_possible_cpus(); ++cpu) {
    UniqueFd fd(open_event(attr, -1, cpu));
    if (!fd || ::ioctl(fd.get(), PERF_EVENT_IOC_SET_BPF, bpf_program__fd(program)) != 0 ||
        ::ioctl(fd.get(), PERF_EVENT_IOC_ENABLE, 0) != 0)
      continue;
    fds.push_back(std::move(fd));
  }
  return fds;
}

pid_t start(char** command, int* output) {
  int ends[2] = {-1, -1};
  if (output && ::pipe(ends) != 0) return -1;
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (output) ::dup2(ends[1], 1);
    ::execvp(command[0], command);
    ::_exit(127);
  }
  if (output) {
    ::close(ends[1]);
    *output = ends[0];
  }
  return pid;
}

/// Ends the command, however the test ends: it would run for ever.
struct Running {
  pid_t pid;
  ~Running() {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
};

struct Globals {
  uint64_t taken, lost, walk_ns, frames;
};

}  // namespace

int main(int argc, char** argv) {
  ::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc < 5 || std::strcmp(argv[3], "--") != 0) return 2;
  const bool cost = std::strcmp(argv[2], "cost") == 0;
  const double seconds = cost ? 0 : std::atof(argv[2]);
  const int tracepoint = testing::tracepoint_id("raw_syscalls/sys_exit");
  const int futex_tracepoint = testing::tracepoint_id("syscalls/sys_exit_futex");
  if (::geteuid() != 0 || tracepoint < 0) {
    std::printf("SKIP: needs root and tracefs\n");
    return kNotHere;
  }

  const auto run = [&](const char* what) -> int {
    int output = -1;
    const pid_t pid = start(argv + 4, cost ? &output : nullptr);
    const Running running{pid};
    ::usleep(300000);
    bpf_object* object = bpf_object__open_file(argv[1], nullptr);
    if (!object) return 1;
    bpf_map* settings = bpf_object__find_map_by_name(object, ".rodata");
    size_t bytes = 0;
    auto* rodata =
        static_cast<uint32_t*>(const_cast<void*>(bpf_map__initial_value(settings, &bytes)));
    rodata[0] = static_cast<uint32_t>(pid);
    if (bpf_object__load(object) != 0) return 1;
    const auto fd = [&](const char* name) { return bpf_object__find_map_fd_by_name(object, name); };
    KernelUnwindMemory memory({.ls_unwind_pool = fd("ls_unwind_pool"),
                               .ls_unwind_rules = fd("ls_unwind_rules"),
                               .ls_unwind_processes = fd("ls_unwind_processes"),
                               .ls_unwind_requests = fd("ls_unwind_requests")});
    ProcessTables tables(memory,
                         [](int fd) { return build_cfa_table(ByteSource::of_file(fd)); });
    const auto before = Clock::now();
    if (auto status = tables.add_process(pid); !status) {
      std::printf("%s\n", status.error().message.c_str());
      return 1;
    }
    if (!cost)
      std::printf("tables: %.1f ms, %.0f KB in %zu files, %zu rules\n",
                  std::chrono::duration<double, std::milli>(Clock::now() - before).count(),
                  static_cast<double>(tables.stats().used_bytes) / 1024, tables.stats().tables,
                  tables.stats().rules);
    const auto program = [&](const char* name) {
      return bpf_object__find_program_by_name(object, name);
    };
    if (cost) {
      std::vector<UniqueFd> events;
      if (std::strcmp(what, "bare") != 0) {
        events = attach_tracepoint(program(what), futex_tracepoint);
        if (events.empty()) return 1;
      }
      std::string text;
      char buffer[4096];
      ssize_t n = 0;
      ::kill(pid, SIGUSR1);
      while ((n = ::read(output, buffer, sizeof buffer)) > 0) text.append(buffer, static_cast<size_t>(n));
      ::close(output);
      Globals globals{};
      const uint32_t zero = 0;
      bpf_map_lookup_elem(fd(".bss"), &zero, &globals);
      const double frames = globals.taken ? static_cast<double>(globals.frames) / static_cast<double>(globals.taken) : 0;
      std::printf("%-12s %s  (%.1f frames, %lu calls)\n", what, text.substr(0, text.find('\n')).c_str(), frames, globals.taken);
      bpf_object__close(object);
      return 0;
    }

    Checker checker(pid, tables, memory);
    auto events = attach_tracepoint(program("at_syscall"), tracepoint);
    auto clocks = attach_clock(program("at_clock"), 999);
    std::printf("attached: %zu syscall, %zu clock\n", events.size(), clocks.size());
    ring_buffer* ring = ring_buffer__new(
        fd("samples"),
        [](void* self, void* data, size_t) {
          static_cast<Checker*>(self)->check(*static_cast<sample*>(data));
          return 0;
        },
        &checker, nullptr);
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    while (Clock::now() < end && ::waitpid(pid, nullptr, WNOHANG) == 0) {
      ring_buffer__poll(ring, 50);
      tables.poll(memory);
    }
    events.clear();
    clocks.clear();
    ring_buffer__free(ring);
    bool good = true;
    uint64_t samples = 0;
    Globals globals{};
    const uint32_t zero = 0;
    bpf_map_lookup_elem(fd(".bss"), &zero, &globals);
    std::printf("taken %lu, lost %lu for want of room\n", globals.taken, globals.lost);
    for (int kind = 0; kind < 2; ++kind) {
      const Totals& t = checker.totals[kind];
      samples += t.samples;
      if (t.samples == 0) continue;
      std::printf("%s: %lu samples, %.1f frames, complete %.2f %%, truncated %lu, guessed %lu, broken %lu\n",
                  kind == SAMPLE_SYSCALL ? "syscall" : "clock  ", t.samples,
                  static_cast<double>(t.frames) / static_cast<double>(t.samples),
                  100.0 * static_cast<double>(t.complete) / static_cast<double>(t.samples), t.truncated, t.guessed, t.broken);
      std::printf("         elfutils: %lu compared, %lu same, %lu it stopped first, %lu we stopped first, "
                  "%lu it went astray, %lu DIFFERENT; user walker differs %lu\n",
                  t.compared, t.same, t.oracle_short, t.ours_short, t.oracle_wrong, t.different, t.user_differs);
      for (const auto& [reason, n] : t.reasons) std::printf("         %8lu %s\n", n, reason.c_str());
      good = good && t.different == 0 && t.user_differs == 0;
    }
    bpf_object__close(object);
    std::printf("%s\n", good && samples > 0 ? "PASS" : "FAIL");
    return good && samples > 0 ? 0 : 1;
  };

  if (!cost) return run("check");
  for (int round = 0; round < 3; ++round)
    for (const char* what : {"bare", "cost_count", "cost_walk"})
      if (const int code = run(what)) return code;
  return 0;
}
