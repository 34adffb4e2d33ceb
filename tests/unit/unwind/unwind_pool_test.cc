#include "unwind/unwind_pool.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "build_here.h"
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

TEST(ProcessTables, StaysWithinItsLimit) {
  LocalUnwindMemory memory;
  ProcessTables tables(memory, build_here, 1);
  ASSERT_TRUE(tables.add_process(::getpid()).ok());
  EXPECT_LE(tables.stats().pool_bytes, 1u << 20);
  EXPECT_GT(tables.stats().tables, 3u);
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
