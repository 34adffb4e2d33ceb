#include "symbolize/symbolizer.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include <ctime>
#include <random>

#include "programs.h"
#include "symbolize/jit_map.h"
#include "symbolize/mini_debug_info.h"
#include "test_symbolizer.h"

namespace lockscope {
namespace {

__attribute__((noinline)) int function_of_this_test(int n) {
  __asm__ volatile("");
  return n + 1;
}

Frame frame_at(TestSymbolizer& symbolizer, pid_t pid, uint64_t address,
               AddressKind kind = AddressKind::Exact) {
  const auto maps = read_maps(pid);
  EXPECT_TRUE(maps.ok());
  const auto frames = symbolizer.symbolize(pid, *maps, address, kind);
  EXPECT_GE(frames.size(), 1u);
  return frames.back();
}

uint64_t address_of(auto* function) { return reinterpret_cast<uint64_t>(function); }

// By handle: under a sanitizer, the plain name leads to its own function.
uint64_t address_in_libc(const char* name) {
  return reinterpret_cast<uint64_t>(::dlsym(::dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), name));
}

TEST(Symbolizer, OwnProcess) {
  TestSymbolizer symbolizer;
  const Frame own = frame_at(symbolizer, ::getpid(), address_of(&function_of_this_test));
  EXPECT_EQ(own.function, "lockscope::(anonymous namespace)::function_of_this_test");
  EXPECT_EQ(own.module, std::filesystem::read_symlink("/proc/self/exe").filename());
  EXPECT_EQ(frame_at(symbolizer, ::getpid(), address_in_libc("pthread_mutex_unlock")),
            (Frame{.function = "pthread_mutex_unlock", .module = "libc.so.6"}));
}

TEST(Symbolizer, ReturnAddressesBelongToTheCall) {
  TestSymbolizer symbolizer;
  const uint64_t entry = address_in_libc("pthread_mutex_unlock");
  EXPECT_NE(frame_at(symbolizer, ::getpid(), entry, AddressKind::Return).function,
            "pthread_mutex_unlock");
  EXPECT_EQ(frame_at(symbolizer, ::getpid(), entry + 1, AddressKind::Return).function,
            "pthread_mutex_unlock");
}

TEST(Symbolizer, Vdso) {
  TestSymbolizer symbolizer;
  const auto maps = read_maps(::getpid());
  const uint64_t base = ::getauxval(AT_SYSINFO_EHDR);
  if (base == 0) GTEST_SKIP() << "no vdso";
  const std::string image(reinterpret_cast<const char*>(base), 4096);
  const auto file = ElfFile::from_memory(image);
  ASSERT_TRUE(file.ok());
  void* vdso = ::dlopen("linux-vdso.so.1", RTLD_NOLOAD | RTLD_LAZY);
  if (!vdso) GTEST_SKIP() << "the vdso is not to be had by name";
  const auto address = reinterpret_cast<uint64_t>(::dlsym(vdso, "__vdso_clock_gettime"));
  ASSERT_NE(address, 0u);
  EXPECT_EQ(symbolizer.symbolize(::getpid(), *maps, address, AddressKind::Exact).at(0),
            (Frame{.function = "clock_gettime", .module = "[vdso]"}));
}

TEST(Symbolizer, AddressesWithoutFile) {
  TestSymbolizer symbolizer;
  void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  // The kernel may join it to a neighbour: the offset is not ours to know.
  const Frame anonymous =
      frame_at(symbolizer, ::getpid(), address_of(static_cast<char*>(memory)) + 0x10);
  EXPECT_EQ(anonymous.module, "[anon]");
  EXPECT_EQ(anonymous.function.substr(0, 9), "[anon]+0x");
  ::munmap(memory, 4096);
  EXPECT_EQ(frame_at(symbolizer, ::getpid(), 0x10),
            (Frame{.function = "[unknown]+0x10", .module = "[unknown]"}));
  EXPECT_EQ(frame_at(symbolizer, ::getpid(), 0, AddressKind::Return).function, "[unknown]+0x0");
  EXPECT_EQ(symbolizer.symbolize(1, {}, 0x1234, AddressKind::Exact).at(0).function,
            "[unknown]+0x1234");
}

TEST(Symbolizer, RunningProgram) {
  TempDir dir;
  compile(waiting_program(), dir / "service", "-O1");
  Child child(dir / "service");
  TestSymbolizer symbolizer;
  EXPECT_EQ(frame_at(symbolizer, child.pid(), child.address("worker")),
            (Frame{.function = "worker", .module = "service"}));
  EXPECT_EQ(frame_at(symbolizer, child.pid(), child.address("main") + 4).function, "main");
  const auto maps = *read_maps(child.pid());
  const std::string id = symbolizer.build_id(child.pid(), maps.at(0));
  EXPECT_EQ(id, open_elf(dir / "service").build_id());
}

TEST(Symbolizer, StrippedProgramHasStableNames) {
  TempDir dir;
  compile(waiting_program(), dir / "service", "-O1");
  const uint64_t start = nm(dir / "service").at("worker");
  run("strip " + (dir / "service"));
  Child child(dir / "service");
  TestSymbolizer symbolizer;
  char name[64];
  std::snprintf(name, sizeof name, "service!fn@0x%llx", static_cast<unsigned long long>(start));
  EXPECT_EQ(frame_at(symbolizer, child.pid(), child.address("worker") + 2).function, name);

  // Without .eh_frame nothing is known but the place.
  compile(waiting_program(), dir / "bare", "-O1");
  const uint64_t bare = nm(dir / "bare").at("worker");
  run("strip -R .eh_frame -R .eh_frame_hdr " + (dir / "bare"));
  Child second(dir / "bare");
  std::snprintf(name, sizeof name, "bare+0x%llx", static_cast<unsigned long long>(bare + 2));
  for (const AddressKind kind : {AddressKind::Exact, AddressKind::Return}) {
    EXPECT_EQ(frame_at(symbolizer, second.pid(), second.address("worker") + 2, kind).function,
              name);
  }
}

TEST(Symbolizer, DebugFileOfAStrippedProgram) {
  TempDir dir;
  compile(waiting_program("secret_worker"), dir / "service", "-O1");
  run("cd " + dir.path() + " && objcopy --only-keep-debug service service.debug && " +
      "strip service && objcopy --add-gnu-debuglink=service.debug service");
  Child child(dir / "service");
  TestSymbolizer symbolizer;
  EXPECT_EQ(frame_at(symbolizer, child.pid(), child.address("worker")).function, "secret_worker");
  TestSymbolizer without({.debug_files = false});
  EXPECT_NE(frame_at(without, child.pid(), child.address("worker")).function, "secret_worker");
}

TEST(Symbolizer, DeletedFile) {
  TempDir dir;
  compile(waiting_program(), dir / "service", "-O1");
  Child child(dir / "service");
  run("rm " + (dir / "service"));
  TestSymbolizer symbolizer;
  EXPECT_EQ(frame_at(symbolizer, child.pid(), child.address("worker")),
            (Frame{.function = "worker", .module = "service"}));
}

TEST(Symbolizer, ReplacedFileIsNotMistaken) {
  TempDir dir;
  compile(waiting_program("old_worker"), dir / "service", "-O1");
  Child old_child(dir / "service");
  // As a package manager does it: another file under the old name.
  compile("int padding(int n) { return n * 5 + 3; }" + waiting_program("new_worker"),
          dir / "service.new", "-O0");
  run("mv " + (dir / "service.new") + " " + (dir / "service"));
  Child new_child(dir / "service");
  TestSymbolizer symbolizer;
  EXPECT_EQ(frame_at(symbolizer, old_child.pid(), old_child.address("worker")).function,
            "old_worker");
  EXPECT_EQ(frame_at(symbolizer, new_child.pid(), new_child.address("worker")).function,
            "new_worker");
}

TEST(Symbolizer, ProcessThatIsGone) {
  TempDir dir;
  compile(waiting_program(), dir / "service", "-O1");
  Child child(dir / "service");
  const pid_t pid = child.pid();
  const auto maps = *read_maps(pid);
  const uint64_t worker = child.address("worker");
  child.stop();
  TestSymbolizer symbolizer;
  EXPECT_EQ(symbolizer.symbolize(pid, maps, worker, AddressKind::Exact).at(0).function, "worker")
      << "its file is still there";

  Child second(dir / "service");
  const auto second_maps = *read_maps(second.pid());
  const uint64_t second_worker = second.address("worker");
  const pid_t second_pid = second.pid();
  TestSymbolizer preloaded;
  preloaded.preload(second_pid, second_maps);
  second.stop();
  run("rm " + (dir / "service"));
  EXPECT_EQ(preloaded.symbolize(second_pid, second_maps, second_worker, AddressKind::Exact)
                .at(0)
                .function,
            "worker");
  TestSymbolizer late;
  EXPECT_EQ(late.symbolize(second_pid, second_maps, second_worker, AddressKind::Exact)
                .at(0)
                .function.substr(0, 10),
            "service+0x");
}

TEST(Symbolizer, HostileNamesArePrintable) {
  TempDir dir;
  compile(waiting_program("evil_worker"), dir / "service", "-O1");
  std::string image = read_all(dir / "service");
  for (size_t at = image.find("evil_worker"); at != std::string::npos;
       at = image.find("evil_worker", at)) {
    image.replace(at, 11, "\x1b[2J\n\xff\"\\<b>");
  }
  const std::string path = dir / "ser\nvice";
  write_file(path, image);
  ::chmod(path.c_str(), 0755);
  Child child("'" + path + "'");
  TestSymbolizer symbolizer;
  const Frame frame = frame_at(symbolizer, child.pid(), child.address("worker"));
  EXPECT_EQ(frame.function, "?[2J??\"\\<b>");
  EXPECT_EQ(frame.module, "ser\\012vice");
}

TEST(Symbolizer, OtherMountNamespaceRoot) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to mount";
  TempDir dir;
  compile(waiting_program("inside_worker"), dir / "inside", "-O1");
  compile("int main(void) { return 0; }", dir / "outside", "-O1");
  // In its namespace, the process runs what we see as another program.
  Child child("unshare -m sh -c 'mount --make-rprivate / && mount --bind " + (dir / "inside") +
              " " + (dir / "outside") + " && exec " + (dir / "outside") + "'");
  TestSymbolizer symbolizer;
  EXPECT_EQ(frame_at(symbolizer, child.pid(), child.address("worker")),
            (Frame{.function = "inside_worker", .module = "outside"}));
}

constexpr char kInlined[] = R"(
#include <cstdio>
#include <unistd.h>
static int volatile sink;
namespace deep {
struct Lock { __attribute__((always_inline)) void take() { sink = 1; __asm__ volatile("point: nop"); } };
__attribute__((always_inline)) inline void guard(Lock& l) {
  l.take();
}
}
__attribute__((noinline)) void worker() {
  deep::Lock lock;
  deep::guard(lock);
  sink = 2;
}
extern "C" char point[];
int main() {
  worker();
  std::printf("point %lx\nready\n", (unsigned long)&point);
  std::fflush(stdout);
  while (true) pause();
}
)";

TEST(Symbolizer, InlinedFramesAndLines) {
  for (const bool separate : {false, true}) {
    TempDir dir;
    compile(kInlined, dir / "service", "-x c++ -O2 -g");
    if (separate) {
      run("cd " + dir.path() + " && objcopy --only-keep-debug service service.debug && " +
          "strip service && objcopy --add-gnu-debuglink=service.debug service");
    }
    Child child(dir / "service");
    TestSymbolizer symbolizer({.lines = true});
    const auto maps = *read_maps(child.pid());
    const auto frames =
        symbolizer.symbolize(child.pid(), maps, child.address("point"), AddressKind::Exact);
    ASSERT_EQ(frames.size(), 3u);
    const std::string source = dir / "service.src";
    EXPECT_EQ(frames[0], (Frame{"deep::Lock::take", source, 6, "service", true}));
    EXPECT_EQ(frames[1], (Frame{"deep::guard", source, 8, "service", true}));
    EXPECT_EQ(frames[2], (Frame{"worker", source, 13, "service", false}));
  }
}

TEST(Symbolizer, MiniDebugInfo) {
  TempDir dir;
  compile(waiting_program("mini_worker"), dir / "service", "-O1");
  run("cd " + dir.path() + " && objcopy --only-keep-debug service mini && xz mini && " +
      "strip service && objcopy --add-section .gnu_debugdata=mini.xz service");
  Child child(dir / "service");
  TestSymbolizer symbolizer;
  EXPECT_EQ(frame_at(symbolizer, child.pid(), child.address("worker")).function, "mini_worker");
}

TEST(MiniDebugInfo, BombsAndJunk) {
  TempDir dir;
  compile("int main(void) { return 0; }", dir / "a");
  run("cd " + dir.path() + " && head -c 300M /dev/zero | xz -0 > bomb && cp a b && " +
      "objcopy --add-section .gnu_debugdata=bomb a && " +
      "objcopy --add-section .gnu_debugdata=b.src b 2>/dev/null || cp a b");
  EXPECT_FALSE(read_mini_debug_info(open_elf(dir / "a")));
  EXPECT_FALSE(read_mini_debug_info(open_elf(dir / "b")));
}

TEST(Symbolizer, JitCode) {
  TempDir dir;
  compile(R"(
    #include <stdio.h>
    #include <sys/mman.h>
    #include <unistd.h>
    int main(void) {
      char* code = mmap(0, 8192, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      char name[64];
      sprintf(name, "/tmp/perf-%d.map", getpid());
      FILE* map = fopen(name, "w");
      fprintf(map, "%lx 40 LazyCompile:*handle /srv/app.js:12\n%lx 20 evil\033[2J\njunk\n",
              (long)code + 256, (long)code + 512);
      fclose(map);
      printf("code %lx\nready\n", (long)code);
      fflush(stdout);
      while (1) pause();
    })",
          dir / "vm");
  Child child(dir / "vm");
  TestSymbolizer symbolizer;
  const uint64_t code = child.address("code");
  EXPECT_EQ(frame_at(symbolizer, child.pid(), code + 256 + 63),
            (Frame{.function = "LazyCompile:*handle /srv/app.js:12", .module = "[jit]"}));
  EXPECT_EQ(frame_at(symbolizer, child.pid(), code + 520).function, "evil?[2J");
  EXPECT_EQ(frame_at(symbolizer, child.pid(), code + 256 + 64).module, "[jit]");
  EXPECT_EQ(frame_at(symbolizer, child.pid(), code + 256 + 64).function.substr(0, 8), "[jit]+0x");
  const std::string map = "/tmp/perf-" + std::to_string(child.pid()) + ".map";
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(map.c_str(), 1000, 1000), 0);
    TestSymbolizer wary;
    EXPECT_EQ(frame_at(wary, child.pid(), code + 300).module, "[anon]") << "another user's map";
  }
  std::filesystem::remove(map);
}

TEST(JitMap, LaterLinesReplaceAndJunkIsLeftOut) {
  const JitMap map = JitMap::parse(
      "1000 100 old\n1040 20 new\n0x2000 0x10 hex prefix\n"
      "zz 10 bad\n3000 0 empty\n4000\nffffffffffffffff 10 wraps\n5000 8 last line");
  const auto name = [&](uint64_t a) {
    const auto symbol = map.find(a);
    return symbol ? std::string(symbol->name) : "";
  };
  EXPECT_EQ(map.size(), 3u);
  EXPECT_EQ(name(0x1000), "") << "part of it was overwritten: gone";
  EXPECT_EQ(name(0x105f), "new");
  EXPECT_EQ(name(0x200f), "hex prefix");
  EXPECT_EQ(name(0x5007), "last line");
}

TEST(Symbolizer, MemoryBound) {
  TestSymbolizer symbolizer({.max_table_bytes = 1});
  const auto maps = *read_maps(::getpid());
  symbolizer.preload(::getpid(), maps);
  const size_t after_preload = symbolizer.table_bytes();
  EXPECT_EQ(frame_at(symbolizer, ::getpid(), address_in_libc("pthread_mutex_unlock")).function,
            "pthread_mutex_unlock");
  EXPECT_EQ(frame_at(symbolizer, ::getpid(), address_of(&function_of_this_test)).function,
            "lockscope::(anonymous namespace)::function_of_this_test");
  TestSymbolizer unbounded;
  unbounded.preload(::getpid(), maps);
  EXPECT_LT(after_preload, unbounded.table_bytes());
}

// The bar is 10 ms for 10,000 addresses on an idle machine; processor time, and
// a generous limit, for busy ones and for sanitizers.
TEST(Symbolizer, TenThousandAddressesAreFast) {
  TestSymbolizer symbolizer;
  const auto maps = *read_maps(::getpid());
  symbolizer.preload(::getpid(), maps);
  std::vector<const Mapping*> code;
  for (const Mapping& mapping : maps) {
    if (mapping.executable && mapping.has_file()) code.push_back(&mapping);
  }
  ASSERT_FALSE(code.empty());
  std::mt19937_64 random(1);
  std::vector<uint64_t> addresses;
  for (int i = 0; i < 10000; ++i) {
    const Mapping& mapping = *code[random() % code.size()];
    addresses.push_back(mapping.start + random() % (mapping.end - mapping.start));
  }
  const auto processor_ms = [&] {
    return 1e3 * (static_cast<double>(std::clock()) / CLOCKS_PER_SEC +
                  symbolizer.parser().cpu_seconds());
  };
  const double before_ms = processor_ms();
  std::vector<CodeAddress> batch;
  for (uint64_t address : addresses) {
    batch.push_back({::getpid(), &maps, address, AddressKind::Return});
  }
  symbolizer.prepare(batch);
  size_t bytes = 0;
  for (uint64_t address : addresses) {
    bytes +=
        symbolizer.symbolize(::getpid(), maps, address, AddressKind::Return)[0].function.size();
  }
  const double ms = processor_ms() - before_ms;
  EXPECT_GT(bytes, 0u);
  RecordProperty("ms", std::to_string(ms));
  std::printf("10,000 addresses: %.1f ms\n", ms);
  EXPECT_LT(ms, 200);
}

}  // namespace
}  // namespace lockscope
