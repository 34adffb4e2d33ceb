// Go programs: names, lines and inlined functions from runtime.pclntab.

#include <cstring>
#include <fstream>
#include <random>
#include <set>

#include "go_programs.h"
#include "symbolize/go_lines.h"
#include "symbolize/go_pclntab.h"
#include "symbolize/language.h"
#include "test_symbolizer.h"

namespace lockscope {
namespace {

// "facts FILE" writes what Go's runtime itself says of a stretch of its code.
constexpr char kSource[] = R"(package main

import (
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sync"
	"time"
)

type Cache struct{ mu sync.Mutex }

//go:noinline
func (c *Cache) Get(n int) int {
	c.mu.Lock()
	n *= 3
	c.mu.Unlock()
	return n
}

//go:noinline
func worker(n int) int { return (&Cache{}).Get(n) + 1 }

func facts(path string) {
	file, _ := os.Create(path)
	pc := reflect.ValueOf(fmt.Fprintf).Pointer()
	for end := pc + 20000; pc < end; pc++ {
		here, next := runtime.FuncForPC(pc), runtime.FuncForPC(pc+1)
		if here == nil || next == nil || here.Entry() != next.Entry() {
			continue
		}
		frame, _ := runtime.CallersFrames([]uintptr{pc + 1}).Next()
		fmt.Fprintf(file, "%x %s %s %d\n", pc, frame.Function, frame.File, frame.Line)
	}
	file.Close()
}

func main() {
	if len(os.Args) > 1 {
		facts(os.Args[1])
		return
	}
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
constexpr uint32_t kLockLine = 16;  // of c.mu.Lock() above
constexpr uint32_t kUnlockLine = 18;

class GoPrograms : public GoTest {
 protected:
  static std::string full() { return build(kSource, "full"); }
  static std::string stripped() { return build(kSource, "stripped", "-ldflags='-s -w'"); }
  // The system's linker leaves no section with the table's name.
  static std::string external_pie(const std::string& name, const std::string& flags) {
    return build(kSource, name, "-buildmode=pie -ldflags='-linkmode=external " + flags + "'");
  }
};

std::string name_at(const GoPclntab& table, uint64_t address) {
  const auto function = table.find(address);
  return function ? table.name(function->name) : "";
}

GoPclntab load(const std::string& path) {
  auto table = GoPclntab::load(open_elf(path));
  if (!table) throw std::runtime_error(path + " has no table");
  return std::move(*table);
}

// The names of all functions by address, but for those that the compiler made
// and that are shortened in one of the tables.
size_t expect_names(const GoPclntab& table, const std::map<std::string, uint64_t>& truth) {
  std::map<uint64_t, std::set<std::string>> names;
  for (const auto& [name, address] : truth) {
    // The symbol table tells assembly from its wrappers, pclntab does not.
    names[address].insert(name.substr(0, name.find(".abi0")));
  }
  size_t compared = 0;
  for (const auto& [address, of_symtab] : names) {
    const auto function = table.find(address);
    if (!function || function->start != address) continue;
    const std::string name = table.name(function->name);
    if (name.starts_with("go.") || name.starts_with("go:") || name.starts_with("type")) continue;
    EXPECT_TRUE(of_symtab.contains(name)) << name << " is " << *of_symtab.begin();
    ++compared;
  }
  return compared;
}

TEST_F(GoPrograms, StrippedHasItsNames) {
  const auto truth = nm(full());
  // -s leaves the code where it is.
  const GoPclntab table = load(stripped());
  for (const char* name :
       {"main.worker", "main.main", "runtime.gopark", "runtime.mallocgc", "main.(*Cache).Get"}) {
    ASSERT_TRUE(truth.contains(name)) << name;
    EXPECT_EQ(name_at(table, truth.at(name)), name);
  }
  EXPECT_GT(expect_names(table, truth), 1000u);
  EXPECT_EQ(name_at(table, truth.at("runtime.text") - 1), "");
  EXPECT_EQ(name_at(table, truth.at("runtime.etext") + 64), "");
}

TEST_F(GoPrograms, ExternalPieWithoutTheSection) {
  external_pie("external", "");
  run("strip -s -o " + (*dir_ / "external-stripped") + " " + (*dir_ / "external"));
  const ElfFile file = open_elf(*dir_ / "external-stripped");
  ASSERT_FALSE(file.find_section(".gopclntab"));
  ASSERT_FALSE(file.find_section(".data.rel.ro.gopclntab"));
  EXPECT_GT(expect_names(load(*dir_ / "external-stripped"), nm(*dir_ / "external")), 1000u);
}

TEST_F(GoPrograms, LinesAreThoseOfTheRuntime) {
  run(full() + " " + (*dir_ / "facts"));
  const auto lines = open_go_lines(open_elf(stripped()));
  ASSERT_TRUE(lines);
  std::ifstream facts(*dir_ / "facts");
  uint64_t address;
  std::string function, file;
  uint32_t line;
  size_t compared = 0, inlined = 0;
  while (facts >> std::hex >> address >> function >> file >> std::dec >> line) {
    const auto frames = lines->find(address);
    ASSERT_FALSE(frames.empty());
    EXPECT_EQ(frames[0].function, function) << std::hex << address;
    EXPECT_EQ(frames[0].file.empty() ? "?" : frames[0].file, file) << std::hex << address;
    EXPECT_EQ(frames[0].line, line) << std::hex << address;
    EXPECT_FALSE(frames.back().inlined);
    ++compared;
    inlined += frames.size() > 1;
  }
  EXPECT_GT(compared, 10000u);
  EXPECT_GT(inlined, 500u);
}

// The call of Lock is inlined: its line is in mutex.go, and its caller's here.
void expect_inlined_lock(LineTable& lines, const GoPclntab& table, const GoFunction& get) {
  std::map<std::string, std::set<uint32_t>> callers;
  for (uint64_t address = get.start; address < get.end; ++address) {
    const auto frames = lines.find(address);
    ASSERT_FALSE(frames.empty());
    EXPECT_EQ(frames.back().function, "main.(*Cache).Get");
    if (frames.back().line == 0) continue;  // padding
    EXPECT_TRUE(frames.back().file.ends_with("/main.go")) << frames.back().file;
    for (size_t i = 0; i + 1 < frames.size(); ++i) {
      EXPECT_TRUE(frames[i].inlined);
      if (frames[i].function.starts_with("sync.(*Mutex).")) {
        EXPECT_TRUE(frames[i].file.ends_with("/sync/mutex.go")) << frames[i].file;
        EXPECT_GT(frames[i].line, 30u);
        callers[frames[i].function].insert(frames[i + 1].line);
      }
    }
  }
  EXPECT_EQ(callers["sync.(*Mutex).Lock"], std::set{kLockLine});
  EXPECT_EQ(callers["sync.(*Mutex).Unlock"], std::set{kUnlockLine});
  EXPECT_GT(table.size(), 1000u);
}

TEST_F(GoPrograms, InlinedCalls) {
  for (const std::string& program :
       {full(), stripped(), build(kSource, "pie", "-buildmode=pie -ldflags='-s -w'"),
        external_pie("external-pie", "-s -w")}) {
    SCOPED_TRACE(program);
    const GoPclntab table = load(program);
    const auto lines = open_go_lines(open_elf(program));
    ASSERT_TRUE(lines);
    bool found = false;
    for (uint64_t i = 0; i < table.size() && !found; ++i) {
      const auto function = table.function(i);
      found = function && table.name(function->name) == "main.(*Cache).Get";
      if (found) expect_inlined_lock(*lines, table, *function);
    }
    EXPECT_TRUE(found);
  }
}

TEST_F(GoPrograms, TextStartIsCheckedAgainstTheCode) {
  std::string image = read_all(stripped());
  const ElfFile file = open_elf(stripped());
  const ElfFile::Section* section = file.find_section(".gopclntab");
  ASSERT_TRUE(section);
  const uint64_t text_start = nm(full()).at("runtime.text");
  const size_t at = section->header.sh_offset + 24;
  const uint64_t somewhere = text_start + 0x20000;
  const std::string name = name_at(load(stripped()), somewhere);
  ASSERT_NE(name, "");
  // As Go 1.26 writes it; and as no one does.
  for (const uint64_t other : {uint64_t{0}, text_start + 16, ~uint64_t{0}}) {
    std::memcpy(image.data() + at, &other, sizeof other);
    const auto table = GoPclntab::load(*ElfFile::from_memory(image)->duplicate());
    ASSERT_TRUE(table);
    EXPECT_EQ(name_at(*table, somewhere), name);
  }
}

// Asserts that it returns, within bounds; and tells whether there was a table.
bool read_everything(std::string image) {
  auto file = ElfFile::from_memory(std::move(image));
  if (!file) return false;
  const auto lines = open_go_lines(*file);
  auto table = GoPclntab::load(std::move(*file));
  if (!lines || !table) return false;
  table->hold();
  for (uint64_t i = 0; i < table->size(); i += 1 + table->size() / 300) {
    const auto function = table->function(i);
    if (!function) continue;
    EXPECT_LT(function->start, function->end);
    uint64_t reached = function->start;
    table->each_value(*function, function->stack, [&](uint64_t start, uint64_t end, int32_t) {
      EXPECT_EQ(start, reached);
      EXPECT_GT(end, start);
      reached = end;
      return true;
    });
    EXPECT_LE(reached, function->end);
    for (const Frame& frame : lines->find(function->start + i % 64)) {
      EXPECT_LE(frame.function.size(), 16384u);
    }
  }
  return true;
}

TEST_F(GoPrograms, HostileTables) {
  for (const std::string& program : {stripped(), external_pie("external-pie", "-s -w")}) {
    const std::string image = read_all(program);
    const GoTablePlace place = find_go_tables(open_elf(program)).at(0);
    const uint64_t size = std::min<uint64_t>(place.size, image.size() - place.offset);
    std::mt19937 random(5);
    int with_table = 0;
    for (int round = 0; round < 60; ++round) {
      std::string changed = image;
      // The header, the whole table, or all of the file.
      for (int i = 0; i < 300; ++i) {
        const uint64_t where = i == 0 && round % 4 == 0 ? place.offset + random() % 72
                               : round % 2 == 0         ? place.offset + random() % size
                                                        : random() % image.size();
        changed[where] ^= static_cast<char>(1 << random() % 8);
      }
      with_table += read_everything(std::move(changed));
    }
    EXPECT_GT(with_table, 10);
    for (int round = 0; round < 20; ++round) {
      read_everything(image.substr(0, random() % image.size()));
    }
  }
}

TEST_F(GoPrograms, HostileNumbers) {
  const std::string image = read_all(stripped());
  const GoTablePlace place = find_go_tables(open_elf(stripped())).at(0);
  static constexpr uint64_t kNumbers[] = {0,          1,          8,          0xffff, 0x7fffffff,
                                          0xffffffff, 1ull << 32, 1ull << 62, ~0ull,  ~0ull - 7};
  for (uint64_t at = 8; at < kGoTableHeaderBytes; at += 8) {
    for (const uint64_t number : kNumbers) {
      std::string changed = image;
      std::memcpy(changed.data() + place.offset + at, &number, sizeof number);
      read_everything(std::move(changed));
    }
  }
}

TEST_F(GoPrograms, Running) {
  for (const std::string& program :
       {full(), stripped(), build(kSource, "pie", "-buildmode=pie -ldflags='-s -w'")}) {
    Child child(program);
    const auto maps = *read_maps(child.pid());
    TestSymbolizer symbolizer;
    EXPECT_EQ(exe_language(symbolizer.parser(), child.pid(), maps), "go") << program;
    const auto frame = [&](const char* what) {
      return symbolizer.symbolize(child.pid(), maps, child.address(what), AddressKind::Exact).at(0);
    };
    EXPECT_EQ(frame("worker").function, "main.worker") << program;
    EXPECT_EQ(frame("Get").function, "main.(*Cache).Get") << program;
    EXPECT_TRUE(frame("Get").file.ends_with("/main.go")) << frame("Get").file;
    EXPECT_EQ(frame("Get").line, kLockLine - 1) << program;
    EXPECT_EQ(frame("Get").module, program.substr(program.rfind('/') + 1));
    EXPECT_TRUE(symbolizer.parser().failures().empty());
  }
}

}  // namespace
}  // namespace lockscope
