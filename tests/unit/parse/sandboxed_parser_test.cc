// The helper as it may turn out: gone, stopped, greedy, endless.
#include "parse/sandboxed_parser.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <sstream>

#include "../symbolize/programs.h"
#include "../symbolize/test_symbolizer.h"
#include "parse/local_parser.h"
#include "parse/parser_helper.h"
#include "process/maps.h"

namespace lockscope {
namespace {

using namespace std::chrono_literals;

UniqueFd open_libc() {
  Dl_info info;
  ::dladdr(reinterpret_cast<void*>(&::getpid), &info);
  return UniqueFd(::open(info.dli_fname, O_RDONLY | O_CLOEXEC));
}

UniqueFd open_self() { return UniqueFd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)); }

/// Our child of that name; 0 if there is none.
pid_t helper() {
  const std::string pid = std::to_string(::getpid());
  const auto children = read_file("/proc/" + pid + "/task/" + pid + "/children");
  if (!children) return 0;
  std::istringstream list(*children);
  for (pid_t child; list >> child;) {
    const auto name = read_file("/proc/" + std::to_string(child) + "/comm");
    // The kernel keeps 15 bytes of it.
    if (name && *name == std::string(kParserHelperName).substr(0, 15) + "\n") return child;
  }
  return 0;
}

/// Returns when the helper has ended; it is left to be reaped.
void kill_helper() {
  const pid_t pid = helper();
  ASSERT_GT(pid, 0);
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
}

void stop_helper() {
  const pid_t pid = helper();
  ASSERT_GT(pid, 0);
  ASSERT_EQ(::kill(pid, SIGSTOP), 0);
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(pid), &info, WSTOPPED | WNOWAIT), 0);
}

uint64_t failures(const SandboxedParser& parser, const std::string& what) {
  const auto found = parser.failures().find("files not read: " + what);
  return found == parser.failures().end() ? 0 : found->second;
}

TEST(SandboxedParser, SaysWhatTheLocalOneSays) {
  SandboxedParser parser;
  LocalParser local;
  const UniqueFd libc = open_libc();
  const auto here = local.unwind_table(libc.get());
  const auto there = parser.unwind_table(libc.get());
  ASSERT_TRUE(here.ok() && there.ok());
  ASSERT_EQ(here->rules.size(), there->rules.size());
  EXPECT_EQ(std::memcmp(here->rules.data(), there->rules.data(),
                        here->rules.size() * sizeof(ls_unwind_rule)),
            0);
  ASSERT_EQ(here->segments.size(), there->segments.size());
  for (size_t i = 0; i < here->segments.size(); ++i) {
    const auto& a = here->segments[i];
    const auto& b = there->segments[i];
    EXPECT_EQ(std::tie(a.file_offset, a.address, a.size),
              std::tie(b.file_offset, b.address, b.size));
    EXPECT_TRUE(std::equal(
        a.rows.begin(), a.rows.end(), b.rows.begin(), b.rows.end(),
        [](const CfaRow& x, const CfaRow& y) { return x.offset == y.offset && x.rule == y.rule; }));
  }
  EXPECT_EQ(parser.links(libc.get())->build_id, local.links(libc.get())->build_id);
  EXPECT_EQ(*parser.checksum(libc.get()), *local.checksum(libc.get()));
  EXPECT_FALSE(parser.links(UniqueFd(::open("/dev/null", O_RDONLY)).get()).ok());
  EXPECT_TRUE(parser.failures().empty());
}

TEST(SandboxedParser, TheHelperHasNothingButItsSocket) {
  SandboxedParser parser;
  ASSERT_TRUE(parser.check().ok());
  int descriptors = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(helper()) + "/fd")) {
    const std::string target = std::filesystem::read_symlink(entry.path());
    EXPECT_TRUE(target == "/dev/null" || target.starts_with("socket:")) << target;
    ++descriptors;
  }
  EXPECT_EQ(descriptors, 4);
}

TEST(SandboxedParser, ANewHelperForOneThatEnded) {
  SandboxedParser parser;
  const UniqueFd libc = open_libc();
  const auto loaded = parser.load_symbols({.file = libc.get()});
  ASSERT_TRUE(loaded.ok());
  EXPECT_TRUE(parser.holds(loaded->id));
  const pid_t first = helper();
  kill_helper();
  EXPECT_FALSE(parser.holds(loaded->id));
  EXPECT_FALSE(parser.find(loaded->id, std::array{uint64_t{1}}).ok());
  EXPECT_TRUE(parser.unwind_table(libc.get()).ok());
  EXPECT_NE(helper(), first);
  const auto again = parser.load_symbols({.file = libc.get()});
  ASSERT_TRUE(again.ok());
  EXPECT_NE(again->id, loaded->id) << "an old number must not mean something new";
  EXPECT_EQ(failures(parser, "the parser crashed"), 1u);
  // No file is to blame for what happened between requests.
  for (int i = 0; i < 5; ++i) {
    kill_helper();
    EXPECT_TRUE(parser.unwind_table(libc.get()).ok());
  }
}

TEST(SandboxedParser, OneThatHangsIsKilledAndTheFileGivenUp) {
  SandboxedParser parser({.wall = 200ms});
  const UniqueFd libc = open_libc();
  ASSERT_TRUE(parser.check().ok());
  stop_helper();
  EXPECT_TRUE(parser.unwind_table(libc.get()).ok()) << "a second helper's answer";
  EXPECT_EQ(failures(parser, "took too long"), 1u);
  stop_helper();
  EXPECT_FALSE(parser.unwind_table(libc.get()).ok());
  EXPECT_EQ(helper(), 0) << "is still there";
  EXPECT_EQ(failures(parser, "took too long"), 2u);
  EXPECT_FALSE(parser.unwind_table(libc.get()).ok());
  EXPECT_EQ(failures(parser, "took too long"), 2u) << "was tried again";
  EXPECT_EQ(failures(parser, "failed before"), 2u);
  EXPECT_TRUE(parser.unwind_table(open_self().get()).ok()) << "others are read as before";
}

class GreedyFile : public ::testing::Test {
 protected:
  // A JIT map, which takes a few times its size to read.
  void write_map(size_t bytes) {
    std::string map;
    for (int i = 0; map.size() < bytes; ++i) {
      char line[64];
      std::snprintf(line, sizeof line, "%x 10 function_number_%d\n", i * 16, i);
      map += line;
    }
    write_file(dir_ / "map", map);
    file_.reset(::open((dir_ / "map").c_str(), O_RDONLY | O_CLOEXEC));
  }

  TempDir dir_;
  UniqueFd file_;
};

TEST_F(GreedyFile, IsTriedOnceMoreInAFreshHelper) {
  write_map(4 << 20);
  HelperLimits limits;
  limits.sandbox.memory_bytes = 64 << 20;
  SandboxedParser parser(limits);
  // Until what was loaded before leaves no room.
  for (int i = 0; i < 50 && parser.failures().empty(); ++i) {
    ASSERT_TRUE(parser.load_jit_map(file_.get()).ok()) << i;
  }
  EXPECT_EQ(failures(parser, "took too much memory"), 1u);
}

TEST_F(GreedyFile, MemoryIsLimited) {
  write_map(60 << 20);
  HelperLimits limits;
  limits.sandbox.memory_bytes = 48 << 20;
  SandboxedParser parser(limits);
  EXPECT_FALSE(parser.load_jit_map(file_.get()).ok());
  EXPECT_EQ(failures(parser, "took too much memory"), 2u);
  EXPECT_FALSE(parser.load_jit_map(file_.get()).ok());
  EXPECT_EQ(failures(parser, "failed before"), 2u) << "also the third try of the first request";
  EXPECT_TRUE(parser.unwind_table(open_libc().get()).ok());
}

TEST_F(GreedyFile, ProcessorTimeIsLimited) {
  write_map(60 << 20);
  SandboxedParser parser({.cpu = 1ms});
  EXPECT_FALSE(parser.load_jit_map(file_.get()).ok());
  EXPECT_EQ(failures(parser, "took too long"), 2u);
  EXPECT_GT(parser.cpu_seconds(), 0.001) << "of helpers that have ended";
}

TEST_F(GreedyFile, OwnersOfManyBadFilesAreRefused) {
  write_map(60 << 20);
  HelperLimits limits;
  limits.sandbox.memory_bytes = 48 << 20;
  SandboxedParser parser(limits);
  for (int i = 0; i < 5; ++i) {
    // Another file, for all that can be told.
    ASSERT_EQ(::ftruncate(UniqueFd(::open((dir_ / "map").c_str(), O_RDWR)).get(), (60 << 20) - i),
              0);
    EXPECT_FALSE(parser.load_jit_map(file_.get()).ok());
  }
  EXPECT_EQ(failures(parser, "took too much memory"), 8u);
  EXPECT_GE(failures(parser, "failed before"), 1u);
}

TEST(SandboxedParser, SymbolizerLoadsAgainWhatWasLost) {
  TempDir dir;
  compile(waiting_program(), dir / "service", "-O1 -g");
  Child child(dir / "service");
  TestSymbolizer symbolizer({.lines = true});
  const auto maps = *read_maps(child.pid());
  const uint64_t worker = child.address("worker");
  symbolizer.preload(child.pid(), maps);
  const pid_t service = child.pid();
  // The process and its file are gone when the helper goes.
  run("rm " + (dir / "service"));
  child.stop();
  kill_helper();
  const auto frames = symbolizer.symbolize(service, maps, worker, AddressKind::Exact);
  EXPECT_EQ(frames.at(0).function, "worker");
  EXPECT_EQ(frames.at(0).line, 4u);
}

}  // namespace
}  // namespace lockscope
