#include "aggregate/holder_tables.h"

#include <gtest/gtest.h>

#include "sampling.h"

namespace lockscope {
namespace {

constexpr uint64_t kProcess = (77ull << 32) | 0xabcd;
constexpr uint64_t kMutex = 0x7f0000001000, kLockId = 0x1234567890abcdef;
constexpr uint64_t kStop = 610'000'000'000;
constexpr int32_t kWrite = 1;
constexpr uint32_t kCertain = 1 << LS_WEIGHT_SHIFT;

class HolderTables : public testing::Test {
 protected:
  HolderTables() { tables_.stop_ns = kStop; }

  void split(uint64_t lock, uint32_t kind, const ls_split& raw) {
    tables_.splits.push_back({{.process = kProcess, .lock = lock, .kind = kind}, raw});
  }

  void activity(uint64_t lock, uint32_t kind, int32_t call, uint64_t count, uint64_t weight) {
    tables_.activities.push_back(
        {{.process = kProcess, .lock = lock, .stack = 3, .kind = kind, .call = call},
         {.count = count, .total_ns = weight, .weight_ns = weight}});
  }

  // A thread that has been blocked in write() for 400 ns, having the mutex for 1,000.
  ls_holder& blocked_holder() {
    auto& [tid, holder] = tables_.holders.emplace_back();
    tid = 1;
    holder.process = kProcess;
    holder.off_since_ns = kStop - 400;
    holder.runnable_ns = 5100;
    holder.blocked_ns = 7300;
    holder.stack = 4;
    holder.inverse = kCertain;
    holder.call = kWrite;
    holder.charged = kMutex;
    holder.charged_kind = LS_MARK_OBJECT;
    holder.state = LS_HOLDER_BLOCKED;
    holder.n = 1;
    holder.marks[0] = {.lock = kMutex, .since_ns = kStop - 1000, .runnable_ns = 5000,
                       .blocked_ns = 7000, .kind = LS_MARK_OBJECT};
    return holder;
  }

  Capture made() {
    Capture capture;
    capture.processes.emplace_back();
    capture.stacks.resize(10);
    capture.locks.resize(3);
    capture.objects.resize(2);
    capture.objects[1].process = 0;
    capture.objects[1].address = kMutex;
    add_holder_tables(tables_,
                      {[](uint64_t process) { return process == kProcess ? 0u : kNone; },
                       [](uint64_t stack) { return static_cast<Index>(stack); },
                       [](uint64_t lock) { return lock == kLockId ? 2u : kNone; }},
                      capture);
    return capture;
  }

  RawTables tables_;
};

TEST_F(HolderTables, LocksAndObjectsBothTiersName) {
  split(kLockId, LS_MARK_LOCK, {10, 1000, 200, 300});
  split(kMutex, LS_MARK_OBJECT, {4, 500, 0, 500});
  split(0xdead, LS_MARK_OBJECT, {4, 500, 0, 500});
  const Capture capture = made();
  ASSERT_EQ(capture.splits.size(), 2u) << "of the third nothing is known";
  const bool lock_first = capture.splits[0].lock != kNone;
  const SplitRow& lock = capture.splits[lock_first ? 0 : 1];
  const SplitRow& object = capture.splits[lock_first ? 1 : 0];
  EXPECT_EQ(lock.lock, 2u);
  EXPECT_EQ(lock.object, kNone);
  EXPECT_EQ(lock.split.running_ns(), 500u);
  EXPECT_EQ(object.object, 1u);
  EXPECT_EQ(object.split.running_ns(), 0u);
}

TEST_F(HolderTables, SamplesStandForTime) {
  activity(kLockId, LS_MARK_LOCK, LS_CALL_RUNNING, 997, 997);
  activity(kLockId, LS_MARK_LOCK, kWrite, 5, 12'345);
  const Capture capture = made();
  ASSERT_EQ(capture.activities.size(), 2u);
  for (const ActivityRow& row : capture.activities) {
    const bool ran = row.call == LS_CALL_RUNNING;
    EXPECT_NEAR(static_cast<double>(row.total_ns), ran ? 1e9 : 12'345, 1);
    EXPECT_EQ(row.count, ran ? 997u : 5u);
    EXPECT_EQ(row.stack, 3u);
  }
}

TEST_F(HolderTables, WhatIsHeldAtTheEndCounts) {
  blocked_holder();
  const Capture capture = made();
  ASSERT_EQ(capture.splits.size(), 1u);
  const HoldSplit& split = capture.splits[0].split;
  EXPECT_EQ(split.count, 0u);
  EXPECT_EQ(split.held_ns, 1000u);
  EXPECT_EQ(split.runnable_ns, 100u);
  EXPECT_EQ(split.blocked_ns, 700u);
  ASSERT_EQ(capture.activities.size(), 1u);
  EXPECT_EQ(capture.activities[0].total_ns, 400u);
  EXPECT_EQ(capture.activities[0].call, kWrite);
  EXPECT_EQ(capture.activities[0].stack, 4u);
}

TEST_F(HolderTables, AnAttemptIsNoHold) {
  ls_holder& holder = blocked_holder();
  holder.marks[0].maybe = 1;
  holder.charged_kind = 0;
  const Capture capture = made();
  EXPECT_TRUE(capture.splits.empty());
  EXPECT_TRUE(capture.activities.empty());
}

TEST_F(HolderTables, AfterTheEndNothingCounts) {
  ls_holder& holder = blocked_holder();
  holder.off_since_ns = kStop + 50;
  holder.marks[0].since_ns = kStop + 20;
  EXPECT_TRUE(made().splits.empty());
}

}  // namespace
}  // namespace lockscope
