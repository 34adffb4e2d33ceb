#include "unwind/unwind_pool.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "build_here.h"
#include "unwind/process_tables.h"

namespace lockscope {
namespace {

TEST(UnwindPool, GrowsUpToItsLimit) {
  LocalUnwindMemory memory;
  UnwindPool pool(memory, 2);
  auto a = pool.allocate(LS_POOL_SEGMENT_WORDS);
  auto b = pool.allocate(LS_POOL_SEGMENT_WORDS / 2);
  auto c = pool.allocate(LS_POOL_SEGMENT_WORDS / 2);
  ASSERT_TRUE(a && b && c);
  EXPECT_EQ(a->index, 0u);
  EXPECT_FALSE(pool.allocate(1));
  EXPECT_EQ(pool.total_bytes(), 2u << 20);
}

TEST(UnwindPool, ExtentsNeverCrossASegment) {
  LocalUnwindMemory memory;
  UnwindPool pool(memory, 8);
  for (int i = 0; i < 20; ++i) {
    auto extent = pool.allocate(90000);
    ASSERT_TRUE(extent);
    EXPECT_EQ(extent->index >> LS_POOL_SEGMENT_SHIFT,
              (extent->index + extent->words - 1) >> LS_POOL_SEGMENT_SHIFT);
    if (i == 15) break;
  }
}

TEST(UnwindPool, ReusesOnlyAfterTheGracePeriod) {
  struct Memory : LocalUnwindMemory {
    int waits = 0;
    void wait_for_walks() override { ++waits; }
  } memory;
  UnwindPool pool(memory, 1);
  auto extent = pool.allocate(LS_POOL_SEGMENT_WORDS);
  ASSERT_TRUE(extent);
  pool.free(*extent);
  EXPECT_EQ(memory.waits, 0);
  EXPECT_TRUE(pool.allocate(1));
  EXPECT_EQ(memory.waits, 1);
}

TEST(UnwindPool, SharesRules) {
  LocalUnwindMemory memory;
  UnwindPool pool(memory, 1);
  const ls_unwind_rule rule{LS_CFA_SP, LS_BP_SAME, 0, 24};
  const uint16_t a = pool.add_rule(rule);
  EXPECT_EQ(pool.add_rule(rule), a);
  EXPECT_NE(a, 0);
  pool.drop_rule(a);
  pool.drop_rule(a);
  pool.reclaim();
  EXPECT_EQ(pool.add_rule({LS_CFA_SP, LS_BP_SAME, 0, 32}), a) << "the number is free again";
}

TEST(UnwindPool, WithoutRulesLeftSaysUnsupported) {
  LocalUnwindMemory memory;
  UnwindPool pool(memory, 1);
  for (int i = 1; i < LS_UNWIND_MAX_RULES; ++i) EXPECT_NE(pool.add_rule({LS_CFA_SP, 0, 0, i * 8}), 0);
  EXPECT_EQ(pool.add_rule({LS_CFA_BP, 0, 0, 8}), 0);
  EXPECT_EQ(memory.rules()[0].cfa, LS_CFA_UNSUPPORTED);
}

/// Children that wait, running `program` (or this one), until the end of the test.
class Children {
 public:
  ~Children() {
    for (const pid_t pid : pids_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  }
  pid_t start(const char* program = nullptr) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return -1;
    const pid_t pid = ::fork();
    if (pid == 0) {
      // Its end closes when it has become the program.
      if (program) {
        ::execl(program, program, "60", nullptr);
        ::_exit(127);
      }
      ::close(ends[1]);
      ::close(ends[0]);
      while (true) ::pause();
    }
    ::close(ends[1]);
    char byte;
    (void)!::read(ends[0], &byte, 1);
    ::close(ends[0]);
    pids_.push_back(pid);
    while (program && !has_libc(pid)) ::usleep(1000);
    return pid;
  }

 private:
  // Whether the program is loaded, or gone.
  static bool has_libc(pid_t pid) {
    const auto maps = read_maps(pid);
    return !maps || maps->empty() || std::any_of(maps->begin(), maps->end(), [](const Mapping& m) {
      return m.executable && m.path.ends_with("/libc.so.6");
    });
  }

  std::vector<pid_t> pids_;
};

class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / "lockscope-XXXXXX") {
    std::string name = path_;
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

TEST(ProcessTables, StaysWithinItsLimit) {
  LocalUnwindMemory memory;
  ProcessTables tables(memory, build_here, 1);
  ASSERT_TRUE(tables.add_process(::getpid()).ok());
  EXPECT_LE(tables.stats().pool_bytes, 1u << 20);
  EXPECT_GT(tables.stats().tables, 3u);
}

TEST(ProcessTables, FiftyProcessesOfOneProgramCostItsTablesOnce) {
  LocalUnwindMemory memory;
  ProcessTables tables(memory, build_here);
  ASSERT_TRUE(tables.add_process(::getpid()).ok());
  const auto before = tables.stats();
  EXPECT_GT(before.used_bytes, 200u << 10);
  Children children;
  constexpr uint64_t kProcesses = 50;
  for (uint64_t i = 0; i < kProcesses; ++i) {
    const pid_t child = children.start();
    ASSERT_TRUE(tables.add_process(child).ok());
    EXPECT_TRUE(memory.find_process(child));
  }
  const auto after = tables.stats();
  EXPECT_EQ(after.processes, 1 + kProcesses);
  EXPECT_EQ(after.tables, before.tables);
  EXPECT_EQ(after.files, before.files);
  // A list of mappings each: one chunk of 4 KiB.
  EXPECT_LE(after.used_bytes - before.used_bytes, kProcesses * 4096);
}

TEST(ProcessTables, CopiesOfAFileShareATable) {
  Folder folder;
  LocalUnwindMemory memory;
  ProcessTables tables(memory, build_here);
  Children children;
  ASSERT_TRUE(tables.add_process(children.start("/bin/sleep")).ok());
  const auto before = tables.stats();
  for (int i = 0; i < 5; ++i) {
    const auto copy = folder / std::to_string(i);
    std::filesystem::copy_file("/bin/sleep", copy);
    ASSERT_TRUE(tables.add_process(children.start(copy.c_str())).ok());
  }
  const auto after = tables.stats();
  EXPECT_EQ(after.files, before.files + 5);
  EXPECT_EQ(after.tables, before.tables);
  EXPECT_LE(after.used_bytes - before.used_bytes, 5u * 4096) << "their lists of mappings";
  EXPECT_EQ(after.rules, before.rules);
}

/// A table of `rows` rows that no two seeds have in common.
CfaTable made_table(uint32_t rows, uint32_t seed) {
  CfaTable table;
  table.rules = {{LS_CFA_SP, LS_BP_SAME, 0, 8}, {LS_CFA_SP, LS_BP_SAME, 0, 16}};
  CfaSegment segment;
  segment.file_offset = 4096;
  segment.address = 4096;
  segment.size = uint64_t{rows} * 16 + 4096;
  for (uint32_t i = 0; i < rows; ++i)
    segment.rows.push_back({i * 16 + (i > 0 ? seed % 16 : 0), static_cast<uint16_t>(i & 1)});
  table.segments.push_back(std::move(segment));
  return table;
}

TEST(TableStore, ExceedingItsMemoryEvictsWhatWasUsedLongestAgo) {
  Folder folder;
  LocalUnwindMemory memory;
  constexpr uint32_t kMegabytes = 4;
  UnwindPool pool(memory, kMegabytes);
  uint32_t seed = 0;
  std::vector<const StoredTable*> evicted;
  // 13 of 300 KB each would fit.
  TableStore store(pool, [&](int) -> Result<CfaTable> { return made_table(75'000, seed); },
                   [&](const StoredTable& table) { evicted.push_back(&table); });
  const auto table_of = [&](uint32_t number) {
    seed = number;
    const auto path = folder / std::to_string(number);
    std::ofstream(path, std::ios::app).close();
    store.new_round();
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    return store.of_file(fd.get());
  };
  const auto first = table_of(0);
  ASSERT_TRUE(first);
  for (uint32_t i = 1; i < 15; ++i) {
    ASSERT_TRUE(table_of(i)) << i;
    ASSERT_TRUE(table_of(0)) << "in use all the time: stays";
    EXPECT_LE(pool.total_bytes(), uint64_t{kMegabytes} << 20);
  }
  EXPECT_GT(store.evicted(), 0u);
  EXPECT_EQ(store.evicted(), evicted.size());
  EXPECT_EQ(std::count(evicted.begin(), evicted.end(), *first), 0);
  EXPECT_EQ(store.files(), 15 - store.evicted());
  EXPECT_EQ(store.refused(), 0u);
}

TEST(TableStore, WhatDoesNotFitIsRefusedAndCounted) {
  LocalUnwindMemory memory;
  UnwindPool pool(memory, 1);
  uint32_t rows = 400'000;  // 1.6 MB
  TableStore store(pool, [&](int) -> Result<CfaTable> { return made_table(rows, 1); },
                   [](const StoredTable&) {});
  const UniqueFd fd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(store.of_file(fd.get()));
  EXPECT_EQ(store.refused(), 1u);
  EXPECT_EQ(store.files(), 0u);
  rows = 1000;
  EXPECT_TRUE(store.of_file(fd.get())) << "what it took was given back";
}

TEST(ProcessTables, SharesTablesAndForgets) {
  LocalUnwindMemory memory;
  ProcessTables tables(memory, build_here);
  ASSERT_TRUE(tables.add_process(::getpid()).ok());
  const auto before = tables.stats();
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  ASSERT_TRUE(tables.add_process(child).ok());
  EXPECT_EQ(tables.stats().tables, before.tables);
  EXPECT_EQ(tables.stats().processes, 2u);
  EXPECT_TRUE(memory.find_process(child));
  tables.remove_process(child);
  EXPECT_FALSE(memory.find_process(child));
  ::kill(child, SIGKILL);
  EXPECT_FALSE(tables.add_process(0x3fffffff).ok());
}

}  // namespace
}  // namespace lockscope
