// Programs of several languages: their names, and what they are taken for.

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>

#include "programs.h"
#include "symbolize/elf_symbols.h"
#include "symbolize/go_pclntab.h"
#include "symbolize/language.h"
#include "test_symbolizer.h"

namespace lockscope {
namespace {

std::optional<std::string> told_language(pid_t pid, const std::vector<Mapping>& maps) {
  SandboxedParser parser;
  return exe_language(parser, pid, maps);
}

constexpr char kGo[] = R"(package main

import (
	"fmt"
	"reflect"
	"sync"
	"time"
)

type Cache struct{ mu sync.Mutex }

//go:noinline
func (c *Cache) Get(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return n * 3
}

//go:noinline
func worker(n int) int { return (&Cache{}).Get(n) + 1 }

func main() {
	fmt.Printf("worker %x\nGet %x\nready\n", reflect.ValueOf(worker).Pointer(),
		reflect.ValueOf((*Cache).Get).Pointer())
	worker(1)
	func() {
		for {
			time.Sleep(time.Hour)
		}
	}()
}
)";

// The newest Go on this machine, or nothing.
std::string go_tool() {
  for (const char* pattern :
       {"command -v go", "ls -d /usr/lib/go-*/bin/go | tail -1", "ls -d /usr/local/go/bin/go"}) {
    FILE* pipe = ::popen((std::string(pattern) + " 2>/dev/null").c_str(), "r");
    char line[4096] = "";
    const bool found = std::fgets(line, sizeof line, pipe);
    ::pclose(pipe);
    if (found) return std::string(line).substr(0, std::string(line).find('\n'));
  }
  return "";
}

// Builds take long: one directory, with Go's cache, for all tests.
class GoPrograms : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { dir_ = new TempDir; }
  static void TearDownTestSuite() {
    delete dir_;
    dir_ = nullptr;
  }
  void SetUp() override {
    if (go_tool().empty()) GTEST_SKIP() << "no Go here";
  }

  static std::string build(const std::string& name, const std::string& flags) {
    const TempDir& dir = *dir_;
    if (!std::filesystem::exists(dir / name)) {
      write_file(dir / "main.go", kGo);
      run("cd " + dir.path() + " && HOME=" + dir.path() + " GO111MODULE=off " + go_tool() +
          " build " + flags + " -o " + name + " main.go");
    }
    return dir / name;
  }
  static std::string full() { return build("full", ""); }
  static std::string stripped() { return build("stripped", "-ldflags='-s -w'"); }

  static TempDir* dir_;
};
TempDir* GoPrograms::dir_ = nullptr;

std::string name_at(const ElfSymbols& symbols, uint64_t address) {
  const auto symbol = symbols.find(address);
  return symbol ? std::string(symbol->name) : "";
}

TEST_F(GoPrograms, StrippedHasItsNames) {
  const auto truth = nm(full());
  // -s leaves the code where it is.
  const ElfSymbols symbols = ElfSymbols::load(open_elf(stripped()));
  for (const char* name : {"main.worker", "main.main", "runtime.gopark", "sync.(*Mutex).lockSlow",
                           "main.(*Cache).Get", "runtime.mallocgc"}) {
    ASSERT_TRUE(truth.contains(name)) << name;
    EXPECT_EQ(name_at(symbols, truth.at(name)), name);
  }
  std::map<uint64_t, std::set<std::string>> names;
  for (const auto& [name, address] : truth) {
    // The symbol table tells assembly from its wrappers, pclntab does not.
    names[address].insert(name.substr(0, name.find(".abi0")));
  }
  size_t compared = 0;
  for (const auto& [address, of_symtab] : names) {
    const auto symbol = symbols.find(address);
    if (!symbol || symbol->start != address) continue;
    // Made by the compiler and shortened in one of the tables.
    if (symbol->name.starts_with("go.") || symbol->name.starts_with("type..")) continue;
    EXPECT_TRUE(of_symtab.contains(std::string(symbol->name)))
        << symbol->name << " is " << *of_symtab.begin();
    ++compared;
  }
  EXPECT_GT(compared, 1000u);
}

TEST_F(GoPrograms, TextStartIsCheckedAgainstTheCode) {
  std::string image = read_all(stripped());
  const ElfFile file = open_elf(stripped());
  const ElfFile::Section* section = file.find_section(".gopclntab");
  ASSERT_TRUE(section);
  uint64_t text_start;
  const size_t at = section->header.sh_offset + 24;
  std::memcpy(&text_start, image.data() + at, sizeof text_start);
  const uint64_t somewhere = text_start + 0x20000;
  const ElfSymbols original = ElfSymbols::load(file);
  const std::string name = name_at(original, somewhere);
  ASSERT_NE(name, "");
  // As Go 1.26 writes it; and as no one does.
  for (const uint64_t other : {uint64_t{0}, text_start + 16, ~uint64_t{0}}) {
    std::memcpy(image.data() + at, &other, sizeof other);
    const auto changed = ElfFile::from_memory(image);
    ASSERT_TRUE(changed.ok());
    const ElfSymbols symbols = ElfSymbols::load(*changed);
    EXPECT_EQ(name_at(symbols, somewhere), name);
  }
}

TEST_F(GoPrograms, HostileTables) {
  const std::string image = read_all(stripped());
  const ElfFile file = open_elf(stripped());
  const Elf64_Shdr& section = file.find_section(".gopclntab")->header;
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    std::string changed = image;
    for (int i = 0; i < 200; ++i) {
      const uint64_t where = i == 0 && round % 4 == 0 ? random() % 72 : random() % section.sh_size;
      changed[section.sh_offset + where] ^= static_cast<char>(1 << random() % 8);
    }
    const auto broken = ElfFile::from_memory(std::move(changed));
    ASSERT_TRUE(broken.ok());
    ElfSymbols::load(*broken);
  }
}

TEST_F(GoPrograms, Running) {
  for (const std::string& program :
       {full(), stripped(), build("pie", "-buildmode=pie -ldflags='-s -w'")}) {
    Child child(program);
    const auto maps = *read_maps(child.pid());
    EXPECT_EQ(told_language(child.pid(), maps), "go") << program;
    TestSymbolizer symbolizer;
    const auto name = [&](const char* what) {
      return symbolizer.symbolize(child.pid(), maps, child.address(what), AddressKind::Exact)
          .at(0)
          .function;
    };
    EXPECT_EQ(name("worker"), "main.worker") << program;
    EXPECT_EQ(name("Get"), "main.(*Cache).Get") << program;
  }
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
