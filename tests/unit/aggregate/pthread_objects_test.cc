#include "aggregate/pthread_objects.h"

#include <gtest/gtest.h>

#include <bit>

#include "sampling.h"

namespace lockscope {
namespace {

constexpr uint64_t kProcess = (77ull << 32) | 0xabcd;
constexpr uint64_t kMutex = 0x7f0000001000, kOther = 0x7f0000002000, kCond = 0x7f0000003000;
constexpr uint64_t kStop = 610'000'000'000;

class PthreadObjects : public testing::Test {
 protected:
  PthreadObjects() { tables_.stop_ns = kStop; }

  ls_object& object(uint64_t address, uint32_t kind) {
    auto& [key, raw] = tables_.objects.emplace_back();
    key = {kProcess, address};
    raw.kind = kind;
    return raw;
  }

  static void add_hold(ls_release_sums& sums, uint64_t ns) {
    sums.count++;
    sums.hold_total_ns += ns;
    sums.hold_max_ns = std::max<uint64_t>(sums.hold_max_ns, ns);
    if (ns != 0) sums.hold_hist[std::bit_width(ns) - 1]++;
  }

  ls_pthread& thread(uint32_t tid) {
    auto& [key, raw] = tables_.pthreads.emplace_back();
    key = tid;
    raw.process = kProcess;
    return raw;
  }

  static void hold(ls_pthread& thread, uint64_t address, uint64_t since_ns, uint8_t flags = 0) {
    thread.held[thread.n++] = {
        .address = address, .since_ns = since_ns, .kind = LS_OBJECT_MUTEX, .flags = flags};
  }

  Capture made() {
    Capture capture;
    capture.processes.emplace_back();
    capture.stacks.resize(10);
    add_pthread_objects(tables_,
                        {[](uint64_t process) { return process == kProcess ? 0u : kNone; },
                         [](uint64_t stack) { return static_cast<Index>(stack); }, nullptr},
                        capture);
    return capture;
  }

  RawTables tables_;
};

TEST_F(PthreadObjects, HoldsTooShortForTheClockCount) {
  ls_object& mutex = object(kMutex, LS_OBJECT_MUTEX);
  for (const uint64_t ns : {0, 0, 16, 1000}) add_hold(mutex.holds, ns);
  const PthreadObject got = made().objects.at(0);
  EXPECT_EQ(got.hold.count, 4u);
  EXPECT_EQ(got.hold.histogram.count(), 4u);
  EXPECT_EQ(got.hold.total_ns, 1016u);
  EXPECT_EQ(got.hold.max_ns, 1000u);
  EXPECT_EQ(got.process, 0u);
}

TEST_F(PthreadObjects, WhatIsHeldAtTheEnd) {
  object(kMutex, LS_OBJECT_MUTEX);
  object(kOther, LS_OBJECT_MUTEX);
  ls_pthread& holder = thread(1);
  hold(holder, kMutex, kStop - 700);
  hold(holder, kOther, kStop - 300, LS_ACQUIRED_MAYBE);
  const Capture capture = made();
  EXPECT_EQ(capture.objects[0].held, 1u);
  EXPECT_EQ(capture.objects[0].held_ns, 700u);
  EXPECT_EQ(capture.objects[1].held, 0u) << "a trylock that may have failed";
}

TEST_F(PthreadObjects, WhoStillSleepsForItDoesNotHaveIt) {
  object(kMutex, LS_OBJECT_MUTEX);
  object(kCond, LS_OBJECT_COND);
  for (const uint32_t tid : {1u, 2u, 3u}) {
    ls_pthread& waiter = thread(tid);
    hold(waiter, kMutex, kStop - 100);
    waiter.pending = kMutex;
    if (tid == 2) waiter.pending_cond = kCond;
    auto& [key, asleep] = tables_.threads.emplace_back();
    key = tid;
    asleep.phase = LS_PHASE_WAITING;
    asleep.word = tid == 1 ? kMutex : kCond + 40;
  }
  // The third one sleeps on a condition that it did not call for: with the mutex.
  EXPECT_EQ(made().objects[0].held, 1u);
}

TEST_F(PthreadObjects, RowsAreBroughtUpToTheSums) {
  ls_object& mutex = object(kMutex, LS_OBJECT_RWLOCK);
  for (int i = 0; i < 100; i++) add_hold(mutex.holds, 160);
  for (int i = 0; i < 20; i++) add_hold(mutex.read_holds, 1600);
  for (const uint64_t stack : {3, 4}) {
    auto& [key, row] = tables_.hold_rows.emplace_back();
    key = {kProcess, kMutex, stack};
    row.weight_count = (stack == 3 ? 30ull : 90ull) << LS_WEIGHT_SHIFT;
    row.weight_ns = stack == 3 ? 40'000 : 10'000;
  }
  const Capture capture = made();
  ASSERT_EQ(capture.holds.size(), 2u);
  EXPECT_EQ(capture.holds[0].count, 30u);
  EXPECT_EQ(capture.holds[1].count, 90u);
  EXPECT_EQ(capture.holds[0].total_ns, 38'400u);
  EXPECT_EQ(capture.holds[1].total_ns, 9'600u);
  EXPECT_EQ(capture.holds[0].stack, 3u);
}

TEST_F(PthreadObjects, OrdersAndLosses) {
  object(kMutex, LS_OBJECT_MUTEX);
  object(kOther, LS_OBJECT_MUTEX);
  auto& [key, row] = tables_.orders.emplace_back();
  key = {kProcess, kOther, kMutex};
  row = {.count = 7, .stack = 5, .tid = 99};
  tables_.orders.push_back({{kProcess, kOther, 0x1234}, {.count = 1}});
  tables_.pthread_counters[LS_PTHREAD_LOST_OBJECTS] = 3;
  const Capture capture = made();
  ASSERT_EQ(capture.orders.size(), 1u) << "an object that there was no room for";
  EXPECT_EQ(capture.orders[0].held, 1u);
  EXPECT_EQ(capture.orders[0].wanted, 0u);
  EXPECT_EQ(capture.orders[0].count, 7u);
  EXPECT_EQ(capture.orders[0].tid, 99);
  EXPECT_EQ(capture.quality.lost, (std::map<std::string, uint64_t>{{"pthread_objects_full", 3}}));
}

}  // namespace
}  // namespace lockscope
