// The rules of Go code against the frame information that Go's linker writes
// into .debug_frame, and against the code itself.
#include "unwind/go_frames.h"

#include <fcntl.h>

#include <cstring>
#include <map>
#include <random>

#include "../symbolize/go_programs.h"
#include "parse/sandboxed_parser.h"
#include "unwind/call_frame_info.h"
#include "unwind/cfa_table.h"
#include "unwind/elf_code.h"

namespace lockscope {
namespace {

constexpr char kSource[] = R"(package main

import "fmt"

func main() { fmt.Println("ready") }
)";

class GoFramesTest : public GoTest {
 protected:
  static std::string program() {
    return build(kSource, "program", "-ldflags=-compressdwarf=false");
  }
  static std::string stripped() { return build(kSource, "stripped", "-ldflags='-s -w'"); }
};

CfaTable table_of(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  auto table = build_cfa_table(ByteSource::of_file(fd.get()));
  if (!table) throw std::runtime_error(path + ": " + table.error().message);
  return std::move(*table);
}

TEST_F(GoFramesTest, AgreeWithDebugFrame) {
  const CfaTable table = table_of(program());
  const UniqueFd fd(::open(program().c_str(), O_RDONLY | O_CLOEXEC));
  const auto source = ByteSource::of_file(fd.get());
  const auto elf = ElfCode::parse(source);
  const auto section = elf->section(".debug_frame");
  ASSERT_TRUE(section.ok());
  const auto info = parse_call_frame_info(*section, CfiKind::DebugFrame);
  size_t same = 0, others = 0;
  for (const CfiRange& range : info.ranges) {
    run_call_frame_program(info, range, [&](uint64_t address, ls_unwind_rule expected) {
      const ls_unwind_rule* rule = find_rule(table, address);
      ASSERT_TRUE(rule);
      if (rule->cfa != LS_CFA_SP) {
        ++others;
        return;
      }
      EXPECT_EQ(expected.cfa, LS_CFA_SP) << std::hex << address;
      EXPECT_EQ(rule->cfa_offset, expected.cfa_offset) << std::hex << address;
      ++same;
    });
  }
  EXPECT_GT(same, 5000u);
  // Ends, signal frames and stack switches: a few functions of the runtime.
  EXPECT_LT(others, same / 50);
}

TEST_F(GoFramesTest, EndsAndSwitches) {
  const auto symbols = nm(program());
  const CfaTable table = table_of(program());
  const CfaTable of_stripped = table_of(stripped());  // its code is in the same place
  const auto address_of = [&](const std::string& name) {
    for (const char* suffix : {".abi0", ""}) {
      if (symbols.contains(name + suffix)) return symbols.at(name + suffix);
    }
    ADD_FAILURE() << "no " << name;
    return uint64_t{0};
  };
  for (const auto& [name, kind] : std::map<std::string, int>{{"runtime.goexit", LS_CFA_END},
                                                             {"runtime.mstart", LS_CFA_END},
                                                             {"runtime.rt0_go", LS_CFA_END},
                                                             {"runtime.mcall", LS_CFA_END},
                                                             {"runtime.morestack", LS_CFA_END},
                                                             {"runtime.futex", LS_CFA_SP},
                                                             {"main.main", LS_CFA_SP}}) {
    const uint64_t address = address_of(name);
    for (const CfaTable* t : {&table, &of_stripped}) {
      const ls_unwind_rule* rule = find_rule(*t, address);
      ASSERT_TRUE(rule) << name;
      EXPECT_EQ(rule->cfa, kind) << name;
      if (kind == LS_CFA_SP) {
        EXPECT_EQ(rule->cfa_offset, 8) << name;
        EXPECT_EQ(rule->bp, LS_BP_SAME) << name;
      }
    }
  }
  // Beyond its first instructions, main keeps rbp below the return address.
  const ls_unwind_rule* within = find_rule(table, address_of("main.main") + 40);
  EXPECT_EQ(within->cfa, LS_CFA_SP);
  EXPECT_GT(within->cfa_offset, 16);
  EXPECT_EQ(within->bp, LS_BP_AT_CFA);
  EXPECT_EQ(within->bp_offset, -16);
  // systemstack calls from another stack.
  size_t by_frame_pointer = 0;
  for (uint64_t i = 0; i < 200; ++i) {
    by_frame_pointer += find_rule(table, address_of("runtime.systemstack") + i)->cfa == LS_CFA_FP;
  }
  EXPECT_GT(by_frame_pointer, 20u);
}

TEST_F(GoFramesTest, SandboxAllowsWhatItTakes) {
  const CfaTable here = table_of(stripped());
  const UniqueFd fd(::open(stripped().c_str(), O_RDONLY | O_CLOEXEC));
  SandboxedParser parser;
  const auto there = parser.unwind_table(fd.get());
  ASSERT_TRUE(there.ok()) << there.error().message;
  EXPECT_TRUE(parser.failures().empty());
  ASSERT_EQ(here.segments.size(), there->segments.size());
  for (size_t i = 0; i < here.segments.size(); ++i) {
    EXPECT_EQ(here.segments[i].rows.size(), there->segments[i].rows.size());
  }
}

TEST_F(GoFramesTest, Hostile) {
  const std::string image = read_all(stripped());
  const ElfFile file = open_elf(stripped());
  const Elf64_Shdr& section = file.find_section(".gopclntab")->header;
  std::mt19937 random(11);
  size_t tables = 0;
  for (int round = 0; round < 40; ++round) {
    std::string changed = image;
    for (int i = 0; i < 400; ++i) {
      const uint64_t where = i == 0 && round % 4 == 0 ? random() % 72 : random() % section.sh_size;
      changed[section.sh_offset + where] ^= static_cast<char>(1 << random() % 8);
    }
    const auto table = build_cfa_table(
        ByteSource::of_memory({reinterpret_cast<const uint8_t*>(changed.data()), changed.size()}));
    if (!table) continue;
    ++tables;
    for (const CfaSegment& segment : table->segments) {
      ASSERT_FALSE(segment.rows.empty());
      for (size_t i = 0; i < segment.rows.size(); ++i) {
        ASSERT_LT(segment.rows[i].rule, table->rules.size());
        ASSERT_LT(segment.rows[i].offset, segment.size);
        ASSERT_TRUE(i == 0 || segment.rows[i - 1].offset < segment.rows[i].offset);
      }
    }
  }
  EXPECT_GT(tables, 20u);
}

}  // namespace
}  // namespace lockscope
