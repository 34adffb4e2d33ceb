// Programs of several languages and what they are taken for. Go: see go_test.cc.

#include <gtest/gtest.h>

#include "programs.h"
#include "symbolize/language.h"
#include "test_symbolizer.h"

namespace lockscope {
namespace {

std::optional<std::string> told_language(pid_t pid, const std::vector<Mapping>& maps) {
  SandboxedParser parser;
  return exe_language(parser, pid, maps);
}

TEST(Language, Rust) {
  if (std::system("command -v rustc >/dev/null 2>&1") != 0) GTEST_SKIP() << "no rustc here";
  TempDir dir;
  write_file(dir / "main.rs", R"(
    mod cache { #[inline(never)] pub fn lookup(n: u64) -> u64 { std::hint::black_box(n) + 1 } }
    fn main() {
      println!("lookup {:x}\nready", cache::lookup as fn(u64) -> u64 as usize);
      cache::lookup(1);
      loop { std::thread::park(); }
    })");
  for (const char* flags :
       {"-Csymbol-mangling-version=v0", "-Csymbol-mangling-version=legacy", "-Cstrip=symbols"}) {
    // Not every compiler knows every mangling.
    if (std::system(
            ("cd " + dir.path() + " && rustc -O " + flags + " main.rs -o a 2>/dev/null").c_str()) !=
        0) {
      continue;
    }
    Child child(dir / "a");
    const auto maps = *read_maps(child.pid());
    EXPECT_EQ(told_language(child.pid(), maps), "rust") << flags;
    TestSymbolizer symbolizer;
    const Frame frame =
        symbolizer.symbolize(child.pid(), maps, child.address("lookup"), AddressKind::Exact)[0];
    if (std::string_view(flags) == "-Cstrip=symbols") {
      EXPECT_EQ(frame.function.substr(0, 7), "a!fn@0x");
    } else {
      EXPECT_EQ(frame.function, "main::cache::lookup") << flags;
    }
  }
}

TEST(Language, CAndCplusplus) {
  TempDir dir;
  compile(waiting_program(), dir / "c");
  Child c(dir / "c");
  EXPECT_EQ(told_language(c.pid(), *read_maps(c.pid())), "c");
  const auto maps = *read_maps(::getpid());
  EXPECT_EQ(told_language(::getpid(), maps), "c++");
  EXPECT_EQ(told_language(-1, {}), std::nullopt);
}

TEST(Language, Interpreters) {
  const auto language_of = [](const std::string& command) -> std::optional<std::string> {
    Child child(command);
    return told_language(child.pid(), *read_maps(child.pid()));
  };
  if (std::system("command -v python3 >/dev/null") == 0) {
    EXPECT_EQ(language_of("python3 -c 'import time; print(\"ready\", flush=True); time.sleep(99)'"),
              "python");
  }
  if (std::system("command -v node >/dev/null") == 0) {
    EXPECT_EQ(language_of("node -e 'console.log(\"ready\"); setTimeout(() => 0, 99000)'"), "node");
  }
  Mapping jvm;
  jvm.path = "/usr/lib/jvm/java-17/lib/server/libjvm.so";
  EXPECT_EQ(told_language(::getpid(), {jvm}), "java");
}

}  // namespace
}  // namespace lockscope
