// Stacks of live child processes, stopped where they are, walked by us and by
// elfutils.
#include "unwind/user_walker.h"

#include <elfutils/libdwfl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "build_here.h"
#include "build_here.h"
#include "unwind/process_tables.h"

namespace lockscope {
namespace {

volatile uint64_t sink;

__attribute__((noinline)) uint64_t leaf(uint64_t x) {
  for (int i = 0; i < 100; ++i) x = x * 6364136223846793005ull + 1;
  sink = x;
  return x;
}

__attribute__((noinline, optimize("omit-frame-pointer"))) uint64_t recurse(int depth, uint64_t x) {
  const uint64_t r = depth ? recurse(depth - 1, leaf(x)) : leaf(x);
  sink = r;
  return r + 1;
}

int by_value(const void* a, const void* b) {
  leaf(1);
  return *static_cast<const int*>(a) - *static_cast<const int*>(b);
}

/// A child that runs `body` for ever, seized by us.
class Child {
 public:
  explicit Child(const std::function<void()>& body) : pid_(::fork()) {
    if (pid_ == 0) {
      while (true) body();
    }
    ::usleep(20000);
    ::ptrace(PTRACE_SEIZE, pid_, nullptr, nullptr);
  }
  ~Child() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, __WALL);
  }
  pid_t pid() const { return pid_; }

  void stop() const {
    int status = 0;
    ::ptrace(PTRACE_INTERRUPT, pid_, nullptr, nullptr);
    // Signals on their way are delivered, the interrupt is what we wait for.
    while (::waitpid(pid_, &status, __WALL) == pid_ && WIFSTOPPED(status) &&
           status >> 16 != PTRACE_EVENT_STOP)
      ::ptrace(PTRACE_CONT, pid_, nullptr, WSTOPSIG(status));
  }
  void go_on() const { ::ptrace(PTRACE_CONT, pid_, nullptr, nullptr); }
  user_regs_struct registers() const {
    user_regs_struct regs{};
    ::ptrace(PTRACE_GETREGS, pid_, nullptr, &regs);
    return regs;
  }

 private:
  pid_t pid_;
};

/// The stack of a stopped child by elfutils.
std::vector<uint64_t> by_elfutils(pid_t pid, bool* failed) {
  static char* path = nullptr;
  static const Dwfl_Callbacks callbacks = {dwfl_linux_proc_find_elf, dwfl_standard_find_debuginfo,
                                           nullptr, &path};
  std::vector<uint64_t> frames;
  Dwfl* dwfl = dwfl_begin(&callbacks);
  dwfl_linux_proc_report(dwfl, pid);
  dwfl_report_end(dwfl, nullptr, nullptr);
  *failed = dwfl_linux_proc_attach(dwfl, pid, true) != 0;
  const int result = dwfl_getthread_frames(
      dwfl, pid,
      [](Dwfl_Frame* frame, void* out) {
        Dwarf_Addr pc = 0;
        bool exact = false;
        if (!dwfl_frame_pc(frame, &pc, &exact) || pc == 0) return static_cast<int>(DWARF_CB_ABORT);
        static_cast<std::vector<uint64_t>*>(out)->push_back(exact ? pc : pc - 1);
        return static_cast<int>(DWARF_CB_OK);
      },
      &frames);
  *failed = *failed || result != 0;
  dwfl_end(dwfl);
  return frames;
}

void compare(const Child& child, int stops, uint32_t at_least_frames) {
  LocalUnwindMemory memory;
  ProcessTables tables(memory, build_here);
  const auto status = tables.add_process(child.pid());
  ASSERT_TRUE(status.ok()) << status.error().message;
  UserWalker walker(memory);
  uint32_t deepest = 0;
  int compared = 0;
  for (int i = 0; i < stops; ++i) {
    ::usleep(300 + static_cast<unsigned>(i) * 17 % 700);
    child.stop();
    const auto regs = child.registers();
    const ls_frames frames = walker.walk(child.pid(), {regs.rip, regs.rsp, regs.rbp},
                                         process_memory(child.pid()));
    bool failed = false;
    const auto expected = by_elfutils(child.pid(), &failed);
    child.go_on();
    deepest = std::max(deepest, frames.n);
    if (failed) continue;
    ++compared;
    const std::vector<uint64_t> ours(frames.ips, frames.ips + frames.n);
    if (frames.flags & LS_UNWIND_TRUNCATED) {
      ASSERT_EQ(ours, std::vector<uint64_t>(expected.begin(), expected.begin() + frames.n));
    } else {
      ASSERT_EQ(ours, expected) << "flags " << frames.flags;
      ASSERT_EQ(frames.flags, static_cast<uint32_t>(LS_UNWIND_COMPLETE));
    }
  }
  EXPECT_GT(compared, stops / 2);
  EXPECT_GE(deepest, at_least_frames);
}

TEST(UserWalker, LeafFunctions) {
  Child child([] { leaf(sink); });
  compare(child, 60, 4);
}

TEST(UserWalker, BlockedInTheKernel) {
  Child child([] { ::usleep(100000); });
  compare(child, 20, 4);
}

TEST(UserWalker, Recursion) {
  Child child([] { recurse(60, sink); });
  compare(child, 40, 40);
}

TEST(UserWalker, TruncatesAndSaysSo) {
  Child child([] { recurse(400, sink); });
  compare(child, 20, LS_UNWIND_MAX_FRAMES);
}

TEST(UserWalker, ThroughLibraries) {
  Child child([] {
    int keys[200];
    for (int& key : keys) key = std::rand();
    std::qsort(keys, 200, sizeof keys[0], by_value);
  });
  compare(child, 60, 6);
}

TEST(UserWalker, ThroughSignalHandlers) {
  Child child([] {
    static bool ready = false;
    if (!ready) {
      ready = true;
      ::signal(SIGUSR2, [](int) { recurse(3, sink); });
    }
    recurse(5, sink);
    ::raise(SIGUSR2);
  });
  compare(child, 60, 10);
}

TEST(UserWalker, WithoutTablesSaysSo) {
  LocalUnwindMemory memory;
  UserWalker walker(memory);
  const ls_frames frames = walker.walk(1, {0x400000, 0x7ffff000, 0},
                                       [](void*, size_t, uint64_t) { return false; });
  EXPECT_EQ(frames.n, 1u);
  EXPECT_TRUE(frames.flags & LS_UNWIND_NO_TABLE);
  EXPECT_TRUE(frames.flags & LS_UNWIND_BROKEN);
  EXPECT_FALSE(frames.flags & LS_UNWIND_COMPLETE);
}

TEST(UserWalker, EndsOnNonsense) {
  // Whatever is on the stack, the walk ends and claims nothing.
  LocalUnwindMemory memory;
  ProcessTables tables(memory, build_here);
  ASSERT_TRUE(tables.add_process(::getpid()).ok());
  UserWalker walker(memory);
  std::srand(1);
  for (int i = 0; i < 2000; ++i) {
    const MemoryReader garbage = [](void* to, size_t bytes, uint64_t) {
      for (size_t k = 0; k + 8 <= bytes; k += 8) {
        // Half of it looks like code of ours.
        uint64_t word = (static_cast<uint64_t>(std::rand()) << 32) ^ static_cast<uint64_t>(std::rand());
        if (std::rand() & 1) word = reinterpret_cast<uint64_t>(&recurse) + word % 100000;
        std::memcpy(static_cast<char*>(to) + k, &word, 8);
      }
      return true;
    };
    const uint64_t sp = 0x7ff000000000 + static_cast<uint64_t>(std::rand() % 4096);
    const ls_frames frames = walker.walk(
        ::getpid(), {reinterpret_cast<uint64_t>(&recurse) + static_cast<uint64_t>(i) * 7, sp, sp + 64}, garbage);
    ASSERT_LE(frames.n, static_cast<uint32_t>(LS_UNWIND_MAX_FRAMES));
  }
}

}  // namespace
}  // namespace lockscope
