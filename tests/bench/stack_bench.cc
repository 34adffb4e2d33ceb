// What stacks cost user space: see scripts/bench.sh.
//
//   stack_bench tables FILE...   each file's unwind table: size, time to build
//   stack_bench symbols PID      10,000 addresses of the program and libc: time, memory
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <string_view>

#include "parse/parser_helper.h"
#include "parse/sandboxed_parser.h"
#include "process/maps.h"
#include "symbolize/symbolizer.h"
#include "unwind/byte_source.h"
#include "unwind/process_tables.h"

using namespace lockscope;

namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// The best of a few: a busy machine only ever adds.
int tables(const std::vector<std::string>& files) {
  for (const std::string& path : files) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat info {};
    if (!fd || ::fstat(fd.get(), &info) != 0) return 1;
    double best_ms = 1e9;
    ProcessTables::Stats stats;
    for (int i = 0; i < 5; ++i) {
      LocalUnwindMemory memory;
      UnwindPool pool(memory, ProcessTables::kMaxPoolMegabytes);
      TableStore store(pool, [](int file) { return build_cfa_table(ByteSource::of_file(file)); },
                       [](const StoredTable&) {});
      const auto start = Clock::now();
      if (!store.of_file(fd.get())) return 1;
      best_ms = std::min(best_ms, ms_since(start));
      stats.used_bytes = pool.used_bytes();
      stats.rules = pool.rules();
    }
    std::printf("  %-24s %6.1f MB  table %7.0f KB  %5zu rules  built in %6.1f ms\n",
                path.substr(path.rfind('/') + 1).c_str(), static_cast<double>(info.st_size) / 1e6,
                static_cast<double>(stats.used_bytes) / 1024, stats.rules, best_ms);
  }
  return 0;
}

double resident_mb(const std::string& pid) {
  const auto status = read_file("/proc/" + pid + "/status");
  if (!status) return 0;
  const size_t at = status->find("VmRSS:");
  return at == status->npos ? 0 : std::atof(status->c_str() + at + 6) / 1024;
}

std::string helper_pid() {
  const std::string self = std::to_string(::getpid());
  auto children = read_file("/proc/" + self + "/task/" + self + "/children");
  return children ? children->substr(0, children->find(' ')) : "";
}

int symbols(pid_t pid) {
  const auto maps = read_maps(pid);
  if (!maps) return 1;
  const std::string program = std::to_string(pid);
  char exe[4096] = {};
  if (::readlink(("/proc/" + program + "/exe").c_str(), exe, sizeof exe - 1) <= 0) return 1;
  std::vector<const Mapping*> code;
  for (const Mapping& mapping : *maps) {
    if (mapping.executable && (mapping.path == exe || mapping.path.ends_with("/libc.so.6")))
      code.push_back(&mapping);
  }
  if (code.empty()) return 1;
  std::mt19937_64 random(1);
  std::set<uint64_t> addresses;
  while (addresses.size() < 10000) {
    const Mapping& mapping = *code[random() % code.size()];
    addresses.insert(mapping.start + random() % (mapping.end - mapping.start));
  }
  std::vector<CodeAddress> batch;
  for (const uint64_t address : addresses) batch.push_back({pid, &*maps, address});

  for (const bool lines : {false, true}) {
    SandboxedParser parser;
    Symbolizer symbolizer(parser, {.lines = lines});
    if (!parser.check()) return 1;
    const double before_mb = resident_mb(helper_pid()) + resident_mb("self");
    auto start = Clock::now();
    for (const Mapping* mapping : code) symbolizer.preload(pid, {*mapping});
    const double load_ms = ms_since(start);
    start = Clock::now();
    symbolizer.prepare(batch);
    size_t named = 0;
    for (const CodeAddress& address : batch)
      named += symbolizer.symbolize(address).back().function.find("+0x") == std::string::npos;
    std::printf("  10,000 of %s and libc, %-20s loaded in %3.0f ms, named in %6.1f ms (%.0f %% inside "
                "a function), %5.1f MB more resident, helper included\n",
                std::strrchr(exe, '/') + 1, lines ? "with source lines:" : "functions alone:",
                load_ms, ms_since(start), static_cast<double>(named) / 100,
                resident_mb(helper_pid()) + resident_mb("self") - before_mb);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (is_parser_helper(argc, argv)) return run_parser_helper(argc, argv);
  const std::string_view what = argc > 2 ? argv[1] : "";
  if (what == "tables") return tables({argv + 2, argv + argc});
  if (what == "symbols") return symbols(std::atoi(argv[2]));
  std::fprintf(stderr, "usage: stack_bench tables FILE... | symbols PID\n");
  return 2;
}
