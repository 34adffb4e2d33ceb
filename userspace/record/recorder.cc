#include "record/recorder.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <unordered_set>
#include <utility>

#include "aggregate/aggregate.h"
#include "probe/holder_probe.h"
#include "record/mapping_watch.h"
#include "record/process_info.h"
#include "unwind/process_tables.h"
#include "unwind/user_walker.h"

namespace lockscope {
namespace {

constexpr double kDefaultSeconds = 10;
constexpr int kTickMs = 200;
// How long the kernel's wishes for unwind tables may wait.
constexpr int kServeMs = 50;
// Code that is mapped is looked at at once, but not more often than this: on a
// host that starts a thousand programs a second each of them would wake us.
constexpr int kMappingMs = 5;
constexpr int kRefreshMs = 50;
// One tick in this many the kernel keeps run-time statistics of the programs
// (which cost 40 ns or so a run): enough to estimate their share.
constexpr int kStatsEvery = 5;

// glibc's pthread_mutex_t: __owner is 8 bytes in (sysdeps/nptl/bits/
// struct_mutex.h on x86-64).
constexpr uint64_t kMutexOwnerOffset = 8;

// SIGINT and SIGTERM as a descriptor, for the time of a recording.
class InterruptFd {
 public:
  InterruptFd() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    ::sigprocmask(SIG_BLOCK, &signals, &before_);
    fd_.reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~InterruptFd() {
    // Take what is pending, or it would end us now.
    signalfd_siginfo info;
    while (::read(fd_.get(), &info, sizeof info) > 0) {
    }
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  InterruptFd(const InterruptFd&) = delete;
  InterruptFd& operator=(const InterruptFd&) = delete;
  int get() const { return fd_.get(); }

 private:
  sigset_t before_;
  UniqueFd fd_;
};

int64_t unix_ns() {
  timespec now {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
}

double own_cpu_seconds() {
  rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// What the BPF programs cost, from the kernel's own statistics in slices of
// the time.
class ProgramCost {
 public:
  /// `run_ns`: CPU time spent in the programs so far, while statistics are kept.
  explicit ProgramCost(std::function<uint64_t()> run_ns) : run_ns_(std::move(run_ns)) {}

  void tick() {
    if (ticks_++ % kStatsEvery == 0) {
      statistics_.reset(bpf_enable_stats(BPF_STATS_RUN_TIME));
      began_ns_ = monotonic_ns();
    } else if (statistics_) {
      sampled_ns_ += monotonic_ns() - began_ns_;
      statistics_.reset();
    }
  }

  double seconds(uint64_t duration_ns) {
    if (statistics_) sampled_ns_ += monotonic_ns() - began_ns_;
    statistics_.reset();
    if (sampled_ns_ == 0) return 0;
    return static_cast<double>(run_ns_()) * 1e-9 *
           static_cast<double>(duration_ns) / static_cast<double>(sampled_ns_);
  }

 private:
  std::function<uint64_t()> run_ns_;
  UniqueFd statistics_;
  uint64_t began_ns_ = 0, sampled_ns_ = 0;
  int ticks_ = 0;
};

Result<ProbeFilter> make_filter(const Target& target, pid_t command, UniqueFd& cgroup) {
  ProbeFilter filter;
  if (command > 0) {
    filter.kind = LS_FILTER_TGIDS;
    filter.pids = {command};
    filter.follow_forks = true;
  } else if (!target.pids.empty()) {
    filter.kind = LS_FILTER_TGIDS;
    for (const pid_t pid : target.pids) {
      auto process = resolve_pid(pid);
      if (!process) return process.error();
      filter.pids.push_back(*process);
    }
  } else if (!target.comm.empty()) {
    filter.kind = LS_FILTER_COMM;
    // The kernel keeps 15 bytes of a name: so does whoever types it in full.
    filter.comm = target.comm.substr(0, 15);
  } else if (!target.cgroup.empty()) {
    auto opened = open_cgroup(target.cgroup);
    if (!opened) return opened.error();
    cgroup = std::move(*opened);
    filter.kind = LS_FILTER_CGROUP;
    filter.cgroup_fd = cgroup.get();
  }
  return filter;
}

// Descriptors that become readable when a process has ended.
std::vector<UniqueFd> watch_processes(const std::vector<pid_t>& pids) {
  std::vector<UniqueFd> watched;
  for (const pid_t pid : pids) {
    watched.emplace_back(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  }
  return watched;
}

// The kernel's helper in user space: it is told of the processes that are seen,
// and keeps their names, symbols and unwind tables.
class Attendant {
 public:
  Attendant(const FutexProbe& probe, FileParser& parser, Symbolizer& symbolizer,
            PthreadTier* pthread_tier, PthreadScope pthread_scope)
      : pthread_tier_(pthread_tier),
        pthread_scope_(pthread_scope),
        processes_(parser, symbolizer),
        memory_(probe.unwind_maps()),
        tables_(memory_, [&parser](int fd) { return parser.unwind_table(fd); }),
        notices_(ring_buffer__new(probe.maps().notices, on_notice, this, nullptr),
                 ring_buffer__free) {}

  bool ok() const { return notices_ != nullptr; }
  int notices_fd() const { return ring_buffer__epoll_fd(notices_.get()); }
  const std::vector<int>& mapping_fds() const { return mappings_.descriptors(); }

  // Returns how long it has time until the next time, in ns.
  uint64_t serve() {
    ring_buffer__consume(notices_.get());
    const uint64_t time_ns = std::min<uint64_t>(pthread_tier_->serve(), kServeMs * 1000000ull);
    serve_tables();
    // Names of what is loaded have more time, but not for ever: it may go again.
    const uint64_t now = monotonic_ns();
    if (mapped_.empty() || now < next_refresh_ns_) return time_ns;
    next_refresh_ns_ = now + kRefreshMs * 1000000ull;
    for (const pid_t pid : std::exchange(mapped_, {}))
      processes_.refresh(pid, [this] { serve_tables(); });
    return time_ns;
  }

  // Ahead of the first stack of a process that is known beforehand. One that
  // is gone again by now is none to speak of.
  void expect(pid_t pid) { (void)tables_.add_process(pid).ok(); }

  ls_frames walk(const ls_blocked& thread) {
    const pid_t pid = static_cast<pid_t>(thread.tgid);
    if (!tables_.knows(pid)) expect(pid);
    return UserWalker(memory_).walk(pid, {thread.ip, thread.sp, thread.bp}, process_memory(pid));
  }

  ProcessTable& processes() { return processes_; }

  // What there was no room for: stacks in such code are not whole.
  void count_lost(std::map<std::string, uint64_t>& lost) const {
    const ProcessTables::Stats stats = tables_.stats();
    if (stats.tables_evicted > 0) lost["unwind_tables_evicted"] = stats.tables_evicted;
    if (stats.tables_refused > 0) lost["unwind_tables_refused"] = stats.tables_refused;
    if (stats.mappings_dropped > 0) lost["mappings_too_many"] = stats.mappings_dropped;
  }

 private:
  void serve_tables() {
    for (const pid_t pid : mappings_.take()) {
      if (!tables_.knows(pid)) continue;
      expect(pid);
      mapped_.insert(pid);
    }
    tables_.poll(memory_);
    memory_.release();
  }

  static int on_notice(void* self, void* data, size_t size) {
    if (size < sizeof(ls_notice)) return 0;
    auto& attendant = *static_cast<Attendant*>(self);
    const auto& notice = *static_cast<const ls_notice*>(data);
    // Tables first: stacks are being taken already, names have time.
    const auto pid = static_cast<pid_t>(LS_PROCESS_TGID(notice.process));
    // We are, when the pthread tier finds out what it costs.
    if (pid == ::getpid()) return 0;
    const bool contended = notice.kind == LS_NOTICE_CONTENDED;
    if (attendant.pthread_scope_ == (contended ? PthreadScope::Pointed : PthreadScope::Targets)) {
      attendant.pthread_tier_->want(pid);
    }
    if (contended) return 0;
    attendant.expect(pid);
    attendant.processes_.meet(notice.process, [&attendant] { attendant.serve_tables(); });
    return 0;
  }

  PthreadTier* pthread_tier_;
  PthreadScope pthread_scope_;
  ProcessTable processes_;
  MappingWatch mappings_;
  std::set<pid_t> mapped_;  // code, since their names were last refreshed
  uint64_t next_refresh_ns_ = 0;
  KernelUnwindMemory memory_;
  ProcessTables tables_;
  std::unique_ptr<ring_buffer, void (*)(ring_buffer*)> notices_;
};

// Lets time pass until the recording is over.
void run_until_over(const RecordOptions& options, double seconds, uint64_t start_ns,
                    std::vector<UniqueFd> watched, Attendant& attendant,
                    ProgramCost& cost) {
  const InterruptFd interrupt;
  const bool has_processes = !watched.empty();
  uint64_t next_tick_ns = start_ns, next_mapping_ns = 0;
  uint64_t serve_ns = 0;  // how long there is time before the next serve()
  while (true) {
    const uint64_t now = monotonic_ns();
    const double elapsed = static_cast<double>(now - start_ns) * 1e-9;
    if (elapsed >= seconds) return;
    if (now >= next_tick_ns) {
      cost.tick();
      if (options.progress) options.progress(elapsed);
      next_tick_ns = now + kTickMs * 1000000ull;
    }
    std::vector<pollfd> descriptors = {{interrupt.get(), POLLIN, 0},
                                       {attendant.notices_fd(), POLLIN, 0}};
    for (const UniqueFd& process : watched) descriptors.push_back({process.get(), POLLIN, 0});
    const bool hear_mappings = now >= next_mapping_ns;
    if (hear_mappings) {
      for (const int fd : attendant.mapping_fds()) descriptors.push_back({fd, POLLIN, 0});
    }
    const double left_ms =
        std::min<double>({(seconds - elapsed) * 1e3, static_cast<double>(serve_ns) * 1e-6,
                          static_cast<double>(hear_mappings ? kServeMs : kMappingMs)});
    ::poll(descriptors.data(), descriptors.size(), static_cast<int>(std::ceil(left_ms)));
    serve_ns = attendant.serve();
    if (std::any_of(descriptors.begin() + 2 + static_cast<std::ptrdiff_t>(watched.size()),
                    descriptors.end(), [](const pollfd& p) { return p.revents != 0; }))
      next_mapping_ns = monotonic_ns() + kMappingMs * 1000000ull;
    if (descriptors[0].revents != 0) return;
    // One that ended, or was gone before it could be watched, has no descriptor.
    for (size_t i = 0; i < watched.size(); i++) {
      if (descriptors[2 + i].revents != 0) watched[i].reset();
    }
    if (has_processes && std::none_of(watched.begin(), watched.end(),
                                      [](const UniqueFd& process) { return bool(process); }))
      return;
  }
}

// Those that have this name now; such as come later are met when they wait.
std::vector<pid_t> processes_named(const std::string& comm) {
  std::vector<pid_t> pids;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const pid_t pid = std::atoi(entry.path().filename().c_str());
    if (pid <= 0) continue;
    auto name = read_file(entry.path() / "comm");
    if (name && *name == comm + "\n") pids.push_back(pid);
  }
  return pids;
}

bool read_word(pid_t pid, uint64_t address, uint32_t& word) {
  const iovec here{&word, sizeof word};
  const iovec there{reinterpret_cast<void*>(address), sizeof word};
  return ::process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof word;
}

// Who holds the locks that are waited for at the end, by glibc's own word on
// it; kept only if it is a live thread of the process. Whether the lock is a
// mutex at all is for later stages to know.
void find_owners(RawTables& tables) {
  for (const auto& [tid, thread] : tables.threads) {
    if (thread.phase != LS_PHASE_WAITING || tables.owners.contains(thread.lock)) continue;
    const pid_t pid = static_cast<pid_t>(LS_PROCESS_TGID(thread.process));
    uint32_t owner = 0;
    if (!read_word(pid, thread.word + kMutexOwnerOffset, owner) || owner == 0) continue;
    const std::string task =
        "/proc/" + std::to_string(pid) + "/task/" + std::to_string(owner);
    if (::access(task.c_str(), F_OK) == 0) {
      tables.owners[thread.lock] = static_cast<int32_t>(owner);
    }
  }
}

// A thread that was found asleep without its stack having been taken.
struct Sleeper {
  uint64_t since_ns;
  ls_frames frames;
};

// Those that are asleep now, shortly before the end of the capture. Where stacks
// are sampled many have none yet.
std::map<uint32_t, Sleeper> find_sleepers(const FutexProbe& probe, Attendant& attendant) {
  std::map<uint32_t, Sleeper> sleepers;
  const auto threads = read_threads(probe.maps());
  if (!threads) return sleepers;
  std::map<uint32_t, const ls_thread*> asked;
  for (const auto& [tid, thread] : *threads) {
    if (thread.phase == LS_PHASE_WAITING && thread.stack == 0) asked[tid] = &thread;
  }
  if (asked.empty()) return sleepers;
  const auto blocked = probe.blocked_threads();
  if (!blocked) return sleepers;
  for (const ls_blocked& asleep : *blocked) {
    const auto found = asked.find(asleep.tid);
    if (found == asked.end() || found->second->word != asleep.args[0]) continue;
    sleepers[asleep.tid] = {found->second->since_ns, attendant.walk(asleep)};
  }
  return sleepers;
}

// Stacks of waits that are not over: of threads asleep since before the capture
// and, again, of those that fell asleep before there were tables for their code
// (a pool's threads, when a program starts: little in number, much in time).
void find_asleep_stacks(const FutexProbe& probe, Attendant& attendant,
                        const std::map<uint32_t, Sleeper>& sleepers, RawTables& tables) {
  auto blocked = probe.blocked_threads();
  if (!blocked) return;
  std::unordered_set<uint64_t> taken_early;
  for (const auto& [key, frames] : tables.stacks) {
    if (frames.flags & LS_UNWIND_NO_TABLE) taken_early.insert(key.hash);
  }
  std::map<uint32_t, ls_thread*> asked;
  for (auto& [tid, thread] : tables.threads) {
    // Time of an episode that began earlier stands in the old stack's row.
    const bool again = thread.episode_ns == 0 && taken_early.contains(thread.stack);
    if (thread.phase == LS_PHASE_WAITING && (thread.stack == 0 || again)) asked[tid] = &thread;
  }
  for (const ls_blocked& asleep : *blocked) {
    const auto found = asked.find(asleep.tid);
    if (found == asked.end() || found->second->word != asleep.args[0]) continue;
    found->second->stack = 0;
    tables.asleep_stacks[asleep.tid] = attendant.walk(asleep);
  }
  // Some are awake by now that were asleep at the end of the capture.
  for (const auto& [tid, thread] : asked) {
    const auto seen = sleepers.find(tid);
    if (thread->stack != 0 || tables.asleep_stacks.contains(tid) || seen == sleepers.end()) continue;
    if (seen->second.since_ns == thread->since_ns) {
      tables.asleep_stacks[tid] = seen->second.frames;
    }
  }
}

void describe_host(Capture& capture) {
  utsname name {};
  if (::uname(&name) == 0) {
    capture.host = name.nodename;
    capture.kernel = name.release;
  }
}

}  // namespace

Result<Capture> record(const RecordOptions& options, SandboxedParser& parser,
                       Symbolizer& symbolizer) {
  std::optional<Command> command;
  if (!options.target.command.empty()) {
    auto started = Command::start(options.target.command, options.command_stdout_to_stderr);
    if (!started) return started.error();
    command.emplace(std::move(*started));
  }
  UniqueFd cgroup;
  auto filter = make_filter(options.target, command ? command->pid() : -1, cgroup);
  if (!filter) return filter.error();
  ProbeSizes sizes{.stack_rate = options.stack_rate};
  const bool everywhere = options.pthread_tier == PthreadScope::Targets;
  if (options.pthread_tier != PthreadScope::Nowhere) sizes.pthread_threads = kPthreadThreads;
  if (options.holder_tier) {
    sizes.holders = LS_HOLDERS;
    sizes.splits = LS_SPLITS;
  }
  auto probe = FutexProbe::open(*filter, sizes);
  if (!probe) return probe.error();

  PthreadTier pthread_tier(*probe, parser,
                           {.stack_rate = options.stack_rate,
                            .budget_percent = options.budget_percent,
                            .mark_holders = options.holder_tier});
  if (everywhere) {
    if (Status loaded = pthread_tier.load(); !loaded.ok()) return loaded.error();
  }
  std::optional<HolderProbe> holder_probe;
  if (options.holder_tier) {
    auto opened = HolderProbe::open(*probe, options.stack_rate);
    if (!opened) return opened.error();
    holder_probe.emplace(std::move(*opened));
    probe->mark_holders(true);
  }
  Attendant attendant(*probe, parser, symbolizer, &pthread_tier, options.pthread_tier);
  if (!attendant.ok()) return failed("cannot read from the BPF programs");
  const bool by_pid = filter->kind == LS_FILTER_TGIDS;
  std::vector<UniqueFd> watched =
      watch_processes(by_pid ? filter->pids : std::vector<pid_t>{});
  for (const pid_t pid : filter->pids) attendant.expect(pid);
  // A command has yet to become its program. The libraries that it is most
  // likely to share with us then have their tables already.
  if (command) attendant.expect(::getpid());
  const double seconds =
      options.seconds.value_or(command ? HUGE_VAL : kDefaultSeconds);

  const double cpu_before = own_cpu_seconds() + parser.cpu_seconds();
  const int64_t start_unix_ns = unix_ns();
  ProgramCost cost([&] {
    return probe->measured_run_ns() + pthread_tier.measured_run_ns() +
           (holder_probe ? holder_probe->measured_run_ns() : 0);
  });
  const uint64_t start_ns = probe->start();
  if (everywhere) {
    pthread_tier.begin();
    if (command) {
      pthread_tier.expect(command->pid());
    } else {
      for (const pid_t pid : filter->pids) pthread_tier.want(pid);
    }
    pthread_tier.serve();
  }
  if (command) {
    if (Status released = command->release(); !released.ok()) return released.error();
  }
  if (filter->kind == LS_FILTER_COMM) {
    for (const pid_t pid : processes_named(filter->comm)) attendant.expect(pid);
    if (everywhere) {
      for (const pid_t pid : processes_named(filter->comm)) pthread_tier.want(pid);
      pthread_tier.serve();
    }
  }
  // Scripts wait for this line before they begin what is to be seen.
  spdlog::info("recording {}", options.target.describe());
  run_until_over(options, seconds, start_ns, std::move(watched), attendant, cost);
  const std::map<uint32_t, Sleeper> sleepers = find_sleepers(*probe, attendant);
  pthread_tier.end();
  const uint64_t stop_ns = probe->stop();
  pthread_tier.detach();
  attendant.serve();
  const double program_seconds = cost.seconds(stop_ns - start_ns);

  auto tables = read_tables(probe->maps());
  if (!tables) return tables.error();
  if (pthread_tier.loaded()) {
    if (Status read = read_pthread_tables(pthread_tier.maps(), *tables); !read.ok()) {
      return read.error();
    }
    tables->slice = pthread_tier.slice();
    if (const SliceBooks* books = pthread_tier.books()) {
      tables->slices = books->slices();
      tables->observed_share = books->observed_share(start_ns, stop_ns);
      tables->estimates = books->estimate(start_ns, stop_ns);
    }
  }
  if (holder_probe) {
    if (Status read = read_holder_tables(holder_probe->maps(), *tables); !read.ok()) {
      return read.error();
    }
  }
  tables->start_ns = start_ns;
  tables->stop_ns = stop_ns;
  find_owners(*tables);
  find_asleep_stacks(*probe, attendant, sleepers, *tables);
  attendant.processes().refresh();
  tables->processes = attendant.processes().processes();
  if (command) command->finish();

  Capture capture = aggregate(*tables);
  attendant.count_lost(capture.quality.lost);
  describe_host(capture);
  capture.target = options.target.describe();
  capture.start_unix_ns = start_unix_ns;
  capture.tiers = {"futex"};
  if (pthread_tier.loaded()) capture.tiers.push_back("pthread");
  if (holder_probe) capture.tiers.push_back("holder");
  const double wall = static_cast<double>(stop_ns - start_ns) * 1e-9;
  const double cpus = static_cast<double>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  if (wall > 0) {
    capture.quality.self_cpu_share =
        (own_cpu_seconds() + parser.cpu_seconds() - cpu_before + program_seconds) / (wall * cpus);
  }
  return capture;
}

}  // namespace lockscope
