// Places the pthread tier's probes in a running program and takes them away again, many times over,
// each time as soon as a probe has been hit. Prints what that took and what it left behind.
//
// usage: attach_rounds ROUNDS PID
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "parse/parser_helper.h"
#include "parse/sandboxed_parser.h"
#include "probe/futex_probe.h"
#include "probe/pthread_probe.h"

using namespace lockscope;

namespace {

[[noreturn]] void die(const std::string& message) {
  std::fprintf(stderr, "attach_rounds: %s\n", message.c_str());
  std::exit(1);
}

template <class T>
T must(Result<T> result) {
  if (!result) die(result.error().message);
  return std::move(*result);
}

uint64_t hits(const PthreadProbe& probe) {
  const auto all = probe.hits();
  return std::accumulate(all.begin(), all.end(), uint64_t{0});
}

size_t open_files() {
  size_t n = 0;
  for ([[maybe_unused]] const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) n++;
  return n;
}

// Of all the system, by the kernel's own list.
size_t links() {
  size_t n = 0;
  for (__u32 id = 0; bpf_link_get_next_id(id, &id) == 0;) n++;
  return n;
}

uint64_t resident_kb() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word == "VmRSS:") break;
  }
  uint64_t kb = 0;
  status >> kb;
  return kb;
}

}  // namespace

int main(int argc, char** argv) {
  if (is_parser_helper(argc, argv)) return run_parser_helper(argc, argv);
  if (argc != 3) die("usage: attach_rounds ROUNDS PID");
  const int rounds = std::atoi(argv[1]);
  const pid_t pid = std::atoi(argv[2]);

  SandboxedParser parser;
  FutexProbe futex = must(FutexProbe::open({.kind = LS_FILTER_TGIDS, .pids = {pid}}, {.stack_rate = 0, .pthread_threads = kPthreadThreads}));
  PthreadProbe probe = must(PthreadProbe::open(futex, 0));
  futex.start();
  probe.begin_slice();

  uint64_t seen = hits(probe), attach_ns = 0, detach_ns = 0;
  size_t files = 0, links_before = 0;
  uint64_t resident = 0;
  for (int round = 0; round < rounds; round++) {
    const uint64_t began = monotonic_ns();
    if (!must(probe.attach(pid, pid, parser))) die("the program has no libc");
    const uint64_t attached = monotonic_ns();
    for (uint64_t now = seen; now == seen;) {
      now = hits(probe);
      if (monotonic_ns() - attached > 10'000'000'000) die("no probe was hit in 10 s");
    }
    const uint64_t hit = monotonic_ns();
    probe.detach();
    const uint64_t detached = monotonic_ns();
    attach_ns += attached - began;
    detach_ns += detached - hit;
    seen = hits(probe);
    if (round > 0) continue;  // the first one opens what stays
    files = open_files();
    links_before = links();
    resident = resident_kb();
  }
  // Nothing comes after the last one has gone.
  const uint64_t last = hits(probe);
  ::usleep(100'000);
  std::printf("{\"rounds\": %d, \"attach_ms\": %.2f, \"detach_ms\": %.2f, \"hits\": %llu, "
              "\"hits_after\": %llu, \"files\": %zd, \"links\": %zd, \"resident_kb\": %lld}\n",
              rounds, static_cast<double>(attach_ns) / rounds / 1e6,
              static_cast<double>(detach_ns) / rounds / 1e6, static_cast<unsigned long long>(last),
              static_cast<unsigned long long>(hits(probe) - last),
              static_cast<ssize_t>(open_files()) - static_cast<ssize_t>(files),
              static_cast<ssize_t>(links()) - static_cast<ssize_t>(links_before),
              static_cast<long long>(resident_kb()) - static_cast<long long>(resident));
}
