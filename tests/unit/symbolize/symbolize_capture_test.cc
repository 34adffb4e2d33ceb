// Naming what a capture holds.

#include "symbolize/symbolize_capture.h"

#include <gtest/gtest.h>

#include "programs.h"
#include "test_symbolizer.h"

namespace lockscope {
namespace {

Capture capture_of(const Child& child) {
  Capture capture;
  Process process;
  process.pid = child.pid();
  process.mappings = *read_maps(child.pid());
  capture.processes.push_back(process);
  return capture;
}

// A capture's addresses lie within the instruction already: a call that begins a
// function is not the function before it.
TEST(SymbolizeCapture, AddressesAsTheyAre) {
  TempDir dir;
  compile(waiting_program(), dir / "a");
  Child child(dir / "a");
  Capture capture = capture_of(child);
  capture.stacks.push_back({0, 0, {child.address("worker"), child.address("main")}});
  TestSymbolizer symbolizer;
  const SymbolizedCapture named = symbolize(capture, symbolizer);
  ASSERT_EQ(named.frames.at(0).size(), 2u);
  EXPECT_EQ(named.frames[0][0].function, "worker");
  EXPECT_EQ(named.frames[0][1].function, "main");
}

constexpr char kLocks[] = R"(
  #include <stdio.h>
  #include <stdlib.h>
  #include <unistd.h>
  namespace app {
    struct Store { long size; int lock; long more; };
    int g_lock = 1;          // .data
    static Store g_store;    // .bss
    const int *const g_table[] = {&g_lock};
  }
  extern "C" int library_lock;
  int main() {
    int local = 0;
    printf("g_lock %lx\ng_store %lx\ng_table %lx\nlibrary %lx\nheap %lx\nlocal %lx\nready\n",
           (long)&app::g_lock, (long)&app::g_store, (long)app::g_table, (long)&library_lock,
           (long)malloc(64), (long)&local);
    fflush(stdout);
    while (1) pause();
  })";

class StaticLocks : public ::testing::Test {
 protected:
  // The variables at addresses that the program prints, "name+offset".
  std::map<std::string, std::string> objects_in(const std::string& flags,
                                                const std::string& strip) {
    compile("int padding[100] = {1}; int library_lock = 1;", dir_ / "liblocks.so", "-shared -fPIC");
    compile(kLocks, dir_ / "a",
            "-x c++ " + flags + " -Wl,--no-as-needed -L" + dir_.path() + " -llocks -Wl,-rpath," +
                dir_.path());
    if (!strip.empty()) run(strip + " " + (dir_ / "a") + " " + (dir_ / "liblocks.so"));
    Child child(dir_ / "a");
    Capture capture = capture_of(child);
    const std::vector<std::pair<std::string, uint64_t>> places = {
        {"g_lock", child.address("g_lock")},       {"g_store", child.address("g_store") + 8},
        {"beyond", child.address("g_store") + 24}, {"g_table", child.address("g_table")},
        {"library", child.address("library")},     {"heap", child.address("heap")},
        {"local", child.address("local")},         {"nowhere", 0}};
    for (const auto& [name, address] : places) {
      Lock lock;
      lock.process = 0;
      lock.address = address;
      capture.locks.push_back(lock);
    }
    TestSymbolizer symbolizer;
    const SymbolizedCapture named = symbolize(capture, symbolizer);
    std::map<std::string, std::string> objects;
    for (size_t i = 0; i < places.size(); ++i) {
      const Lock& lock = named.capture.locks[i];
      if (lock.object.empty()) continue;
      objects[places[i].first] = lock.object + "+" + std::to_string(lock.object_offset);
    }
    return objects;
  }

  TempDir dir_;
};

TEST_F(StaticLocks, HaveTheirVariablesNames) {
  std::vector<std::string> linkings = {"-fPIE -pie", "-fPIC -pie -O1", "-no-pie -Wl,-z,now"};
  // Its code begins in the middle of a page that holds other things, too.
  if (std::system("command -v ld.lld >/dev/null") == 0) linkings.push_back("-pie -fuse-ld=lld");
  for (const std::string& flags : linkings) {
    EXPECT_EQ(objects_in(flags, ""),
              (std::map<std::string, std::string>{{"g_lock", "app::g_lock+0"},
                                                  {"g_store", "app::g_store+8"},
                                                  {"library", "library_lock+0"}}))
        << flags;
  }
}

TEST_F(StaticLocks, StrippedKeepWhatLibrariesExport) {
  EXPECT_EQ(objects_in("-fPIE -pie", "strip -s"),
            (std::map<std::string, std::string>{{"library", "library_lock+0"}}));
}

}  // namespace
}  // namespace lockscope
