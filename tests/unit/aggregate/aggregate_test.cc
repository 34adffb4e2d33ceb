#include "aggregate/aggregate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <initializer_list>

#include "sampling.h"

namespace lockscope {
namespace {

// Ten minutes after boot to ten seconds later; multiples of a tick.
constexpr uint64_t kStart = 600'000'000'000;
constexpr uint64_t kStop = 610'000'000'000;

constexpr uint64_t kProcess = (77ull << 32) | 0xabcd;
constexpr uint64_t kOther = (78ull << 32) | 0x1234;
constexpr uint64_t kLock = 0x1111;

// A book kept as the kernel keeps it (events.h), by the same two additions.
struct Book {
  uint64_t word = 0;
  void begin(uint64_t at_ns) { word += 1 - (at_ns >> LS_TICK_SHIFT << LS_BOOK_COUNT_BITS); }
  void end(uint64_t at_ns) { word += (at_ns >> LS_TICK_SHIFT << LS_BOOK_COUNT_BITS) - 1; }
};

// Area already charged, in ticks modulo 2^48.
uint64_t charge(int64_t ns) {
  return static_cast<uint64_t>(ns / LS_TICK_NS) & ((1ull << LS_AREA_BITS) - 1);
}

ls_lock make_lock(const Book& book, uint64_t charged, uint64_t process = kProcess) {
  ls_lock lock{};
  lock.key = {process, 0x7000, 0, LS_LOCK_PRIVATE};
  lock.process = process;
  lock.address = 0x7000;
  lock.book = book.word;
  lock.charged = charged;
  return lock;
}

ls_wait_row wait_row(std::initializer_list<uint64_t> durations) {
  ls_wait_row row{};
  for (const uint64_t ns : durations) {
    row.sums.sleeps++;
    row.sums.total_ns += ns;
    row.sums.max_ns = std::max<uint64_t>(row.sums.max_ns, ns);
    row.sums.hist[std::bit_width(ns) - 1]++;
  }
  row.weight_ns = row.sums.total_ns;
  return row;
}

ls_release_row release_row(uint64_t count, uint64_t blame_ns) {
  ls_release_row row{};
  row.sums.count = count;
  row.blame_ns = blame_ns;
  row.weight_count = count << LS_WEIGHT_SHIFT;
  row.weight_blame_ns = blame_ns;
  return row;
}

// The sums of the locks, where every event is in the rows.
RawTables with_sums(RawTables tables) {
  for (auto& [id, lock] : tables.locks) {
    for (const auto& [key, row] : tables.waits) {
      if (key.lock != id) continue;
      lock.waits.sleeps += row.sums.sleeps;
      lock.waits.timeouts += row.sums.timeouts;
      lock.waits.total_ns += row.sums.total_ns;
      lock.waits.max_ns = std::max(lock.waits.max_ns, row.sums.max_ns);
      for (size_t i = 0; i < LS_HIST_SLOTS; i++) lock.waits.hist[i] += row.sums.hist[i];
    }
    for (const auto& [key, row] : tables.releases) {
      if (key.lock != id) continue;
      lock.releases.count += row.sums.count;
      lock.releases.hold_total_ns += row.sums.hold_total_ns;
      lock.releases.hold_max_ns = std::max(lock.releases.hold_max_ns, row.sums.hold_max_ns);
      for (size_t i = 0; i < LS_HIST_SLOTS; i++) {
        lock.releases.hold_hist[i] += row.sums.hold_hist[i];
      }
    }
  }
  return tables;
}

ls_frames frames(std::initializer_list<uint64_t> addresses, uint32_t flags = LS_UNWIND_COMPLETE) {
  ls_frames stack{};
  stack.flags = flags;
  for (const uint64_t address : addresses) stack.ips[stack.n++] = address;
  return stack;
}

ls_thread waiting(uint64_t since_ns, uint64_t stack, uint64_t lock = kLock) {
  ls_thread thread{};
  thread.process = kProcess;
  thread.phase = LS_PHASE_WAITING;
  thread.lock = lock;
  thread.since_ns = since_ns;
  thread.stack = stack;
  return thread;
}

RawTables empty_tables() {
  RawTables tables;
  tables.start_ns = kStart;
  tables.stop_ns = kStop;
  return tables;
}

// The waiting of a capture must be the same whichever way it is counted.
void expect_conserved(const Capture& capture) {
  for (size_t i = 0; i < capture.locks.size(); i++) {
    uint64_t waiting = 0;
    int64_t charged = capture.locks[i].unreleased_ns;
    for (const WaitRow& row : capture.waits) waiting += row.lock == i ? row.total_ns() : 0;
    for (const ReleaseRow& row : capture.releases) {
      charged += row.lock == i ? static_cast<int64_t>(row.blame_ns) : 0;
    }
    EXPECT_EQ(waiting, capture.locks[i].area_ns) << "lock " << i;
    EXPECT_EQ(charged, static_cast<int64_t>(capture.locks[i].area_ns)) << "lock " << i;
  }
}

TEST(Aggregate, NothingIsNothing) {
  const Capture capture = aggregate(empty_tables());
  EXPECT_EQ(capture.duration_ns, 10'000'000'000u);
  EXPECT_TRUE(capture.processes.empty());
  EXPECT_TRUE(capture.locks.empty());
  EXPECT_TRUE(capture.waits.empty());
  EXPECT_TRUE(capture.quality.lost.empty());
}

TEST(Aggregate, EveryFieldOfALock) {
  RawTables tables = empty_tables();
  ls_lock lock = make_lock({}, 0);
  lock.key = {99, 0x40, 0x800002, LS_LOCK_SHARED};
  lock.traits = LS_TRAIT_PLAIN_WAIT | LS_TRAIT_VAL_2;
  lock.max_waiters = 5;
  lock.refused_holds = 6;
  lock.waited_releases = 21;
  lock.self_releases = 20;
  lock.waiter_threads[0] = 0b1011;
  lock.waiter_threads[3] = 1ull << 63;
  lock.releaser_threads[1] = ~0ull;
  tables.locks.emplace_back(kLock, lock);
  tables.locks.emplace_back(kLock + 1, make_lock({}, 0));
  tables.owners[kLock] = 4242;

  const Capture capture = aggregate(with_sums(tables));
  ASSERT_EQ(capture.locks.size(), 2u);
  const Lock& shared = capture.locks[0];
  EXPECT_EQ(shared.id, kLock);
  EXPECT_TRUE(shared.shared);
  EXPECT_EQ(shared.inode, 99u);
  EXPECT_EQ(shared.file_offset, 0x40u);
  EXPECT_EQ(shared.device, 0x800002u);
  EXPECT_EQ(shared.address, 0x7000u);
  EXPECT_EQ(shared.traits, LS_TRAIT_PLAIN_WAIT | LS_TRAIT_VAL_2);
  EXPECT_EQ(shared.max_waiters, 5u);
  EXPECT_EQ(shared.refused_holds, 6u);
  EXPECT_EQ(shared.waited_releases, 21u);
  EXPECT_EQ(shared.self_releases, 20u);
  EXPECT_EQ(shared.waiter_threads, 4u);
  EXPECT_EQ(shared.releaser_threads, 64u);
  EXPECT_EQ(shared.owner_tid, 4242);
  const Lock& own = capture.locks[1];
  EXPECT_FALSE(own.shared);
  EXPECT_EQ(own.inode, 0u);
  EXPECT_EQ(own.file_offset, 0u);
  EXPECT_EQ(own.owner_tid, 0);
}

TEST(Book, AreaOfWaitsThatEnded) {
  Book book;
  book.begin(kStart + 1600);
  book.begin(kStart + 3200);
  book.end(kStart + 4800);
  book.end(kStart + 16000);
  EXPECT_EQ(book.word & LS_BOOK_COUNT_MASK, 0u);
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock(book, charge(15000)));
  const Capture capture = aggregate(with_sums(tables));
  EXPECT_EQ(capture.locks[0].area_ns, 3200u + 12800u);
  EXPECT_EQ(capture.locks[0].unreleased_ns, 16000 - 15000 + 15000 % 16);
}

TEST(Book, WaitersInFlightCountUpToTheEnd) {
  Book book;
  for (int i = 0; i < 300; i++) book.begin(kStop - 1600);
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock(book, 0));
  const Capture capture = aggregate(with_sums(tables));
  EXPECT_EQ(capture.locks[0].area_ns, 300u * 1600);
  EXPECT_EQ(capture.locks[0].unreleased_ns, 300 * 1600);
}

// The sum of starts and ends goes around 2^48 many times on a machine that has
// been up for days; the difference stays.
TEST(Book, SumOfTimesWrapsAround) {
  constexpr uint64_t kLong = 90ull * 86'400 * 1'000'000'000;  // three months
  Book book;
  for (uint64_t i = 0; i < 1000; i++) {
    book.begin(kLong + i * 1600);
    if (i % 2 == 0) book.end(kLong + i * 1600 + 160);
  }
  RawTables tables = empty_tables();
  tables.start_ns = kLong;
  tables.stop_ns = kLong + 10'000'000'000;
  tables.locks.emplace_back(kLock, make_lock(book, charge(80'000)));
  uint64_t area = 500 * 160;
  for (uint64_t i = 1; i < 1000; i += 2) area += 10'000'000'000 - i * 1600;
  const Capture capture = aggregate(with_sums(tables));
  EXPECT_EQ(capture.locks[0].area_ns, area);
  EXPECT_EQ(capture.locks[0].unreleased_ns, static_cast<int64_t>(area) - 80'000);
}

TEST(Book, UnreleasedAcrossTheWrapOfTheArea) {
  constexpr uint64_t kModulus = 1ull << LS_AREA_BITS;
  Book book;
  book.word = 30ull << LS_BOOK_COUNT_BITS;  // 2^48 + 30 ticks of waiting
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock(book, kModulus - 20));
  EXPECT_EQ(aggregate(with_sums(tables)).locks[0].unreleased_ns, 50 * LS_TICK_NS);
}

// Charged, and taken out of the books afterwards.
TEST(Book, UnreleasedMayBeNegative) {
  Book book;
  book.begin(kStart);
  book.end(kStart + 1600);
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock(book, charge(4800)));
  tables.locks.emplace_back(kLock + 1, make_lock({}, charge(16)));
  const Capture capture = aggregate(with_sums(tables));
  EXPECT_EQ(capture.locks[0].unreleased_ns, -3200);
  EXPECT_EQ(capture.locks[1].unreleased_ns, -16);
}

TEST(Aggregate, RowsPointAtTheirLocksAndStacks) {
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock({}, 0));
  tables.locks.emplace_back(kLock + 1, make_lock({}, 0));
  tables.stacks.push_back({{0xa, kProcess}, frames({1, 2, 3})});
  tables.stacks.push_back({{0xb, kProcess}, frames({4})});
  ls_wait_row waits = wait_row({160, 3200, 3200});
  waits.sums.sleeps = 7;
  waits.sums.timeouts = 2;
  tables.waits.push_back({{kLock + 1, 0xb}, waits});
  ls_release_row releases = release_row(9, 6560);
  releases.sums.hold_total_ns = 480;
  releases.sums.hold_max_ns = 320;
  releases.sums.hold_hist[8] = 1;
  releases.sums.hold_hist[6] = 2;
  tables.releases.push_back({{kLock + 1, 0xa}, releases});
  tables.pairs.push_back({{kLock + 1, 0xb, 0xa}, {3, 6560}});
  tables.pairs.push_back({{kLock, 0xb, 0}, {1, 16}});       // no release was seen
  tables.pairs.push_back({{0x9999, 0xdead, 0xa}, {2, 32}});  // lock and stack were lost

  const Capture capture = aggregate(with_sums(tables));
  ASSERT_EQ(capture.stacks.size(), 2u);
  EXPECT_EQ(capture.stacks[0].addresses, (std::vector<uint64_t>{1, 2, 3}));
  EXPECT_EQ(capture.stacks[1].addresses, (std::vector<uint64_t>{4}));
  ASSERT_EQ(capture.waits.size(), 1u);
  const WaitRow& wait = capture.waits[0];
  EXPECT_EQ(wait.lock, 1u);
  EXPECT_EQ(wait.stack, 1u);
  EXPECT_EQ(wait.ended.count, 3u);
  EXPECT_EQ(wait.ended.total_ns, 6560u);
  EXPECT_EQ(wait.ended.max_ns, 3200u);
  EXPECT_EQ(wait.ended.histogram.slots[7], 1u);
  EXPECT_EQ(wait.ended.histogram.slots[11], 2u);
  EXPECT_EQ(wait.ended.histogram.count(), 3u);
  EXPECT_EQ(wait.sleeps, 7u);
  EXPECT_EQ(wait.timeouts, 2u);
  EXPECT_EQ(wait.in_flight, 0u);
  ASSERT_EQ(capture.releases.size(), 1u);
  const ReleaseRow& release = capture.releases[0];
  EXPECT_EQ(release.lock, 1u);
  EXPECT_EQ(release.stack, 0u);
  EXPECT_EQ(release.count, 9u);
  EXPECT_EQ(release.blame_ns, 6560u);
  EXPECT_EQ(release.hold.count, 3u);
  EXPECT_EQ(release.hold.total_ns, 480u);
  EXPECT_EQ(release.hold.max_ns, 320u);
  EXPECT_EQ(release.hold.histogram.slots[8], 1u);
  EXPECT_EQ(release.hold.histogram.slots[6], 2u);
  ASSERT_EQ(capture.pairs.size(), 3u);
  EXPECT_EQ(capture.pairs[0].lock, 1u);
  EXPECT_EQ(capture.pairs[0].waiter, 1u);
  EXPECT_EQ(capture.pairs[0].waker, 0u);
  EXPECT_EQ(capture.pairs[0].count, 3u);
  EXPECT_EQ(capture.pairs[0].total_ns, 6560u);
  EXPECT_EQ(capture.pairs[1].waker, kNone);
  EXPECT_EQ(capture.pairs[2].lock, kNone);
  EXPECT_EQ(capture.pairs[2].waiter, kNone);
  EXPECT_EQ(capture.pairs[2].waker, 0u);
}

// Several hashes of stacks that were lost fall together, and nothing of them.
TEST(Aggregate, RowsWithoutTheirStacksMeetInOne) {
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock({}, 0));
  tables.waits.push_back({{kLock, 0xdead}, wait_row({160, 320})});
  tables.waits.push_back({{kLock, 0xbeef}, wait_row({640})});
  tables.waits.push_back({{kLock, 0}, wait_row({})});
  const Capture capture = aggregate(with_sums(tables));
  ASSERT_EQ(capture.waits.size(), 1u);
  EXPECT_EQ(capture.waits[0].stack, kNone);
  EXPECT_EQ(capture.waits[0].ended.count, 3u);
  EXPECT_EQ(capture.waits[0].ended.total_ns, 1120u);
  EXPECT_EQ(capture.waits[0].ended.max_ns, 640u);
}

TEST(Aggregate, EmptyReleaseRowsAreLeftOut) {
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock({}, 0));
  tables.releases.push_back({{kLock, 1}, release_row(0, 0)});
  tables.releases.push_back({{kLock, 2}, release_row(1, 0)});
  tables.releases.push_back({{kLock, 3}, release_row(0, 16)});
  EXPECT_EQ(aggregate(with_sums(tables)).releases.size(), 2u);
}

TEST(InFlight, FirstSleepUpToTheEnd) {
  Book book;
  book.begin(kStop - 4800);
  book.begin(kStop - 1600);
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock(book, 0));
  tables.stacks.push_back({{0xa, kProcess}, frames({1})});
  tables.threads.emplace_back(1, waiting(kStop - 4800, 0xa));
  tables.threads.emplace_back(2, waiting(kStop - 1600, 0xa));
  const Capture capture = aggregate(with_sums(tables));
  ASSERT_EQ(capture.waits.size(), 1u);
  const WaitRow& row = capture.waits[0];
  EXPECT_EQ(row.stack, 0u);
  EXPECT_EQ(row.ended.count, 0u);
  EXPECT_EQ(row.in_flight, 2u);
  EXPECT_EQ(row.in_flight_ns, 6400u);
  EXPECT_EQ(row.in_flight_max_ns, 4800u);
  EXPECT_EQ(row.before_capture, 0u);
  EXPECT_EQ(row.total_ns(), 6400u);
  EXPECT_EQ(capture.locks[0].unreleased_ns, 6400);
  expect_conserved(capture);
}

TEST(InFlight, OnlyThreadsThatWait) {
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock({}, 0));
  ls_thread woken = waiting(kStop - 160, 0);
  woken.phase = LS_PHASE_WOKEN;
  ls_thread idle = waiting(kStop - 160, 0);
  idle.phase = LS_PHASE_IDLE;
  tables.threads.emplace_back(1, woken);
  tables.threads.emplace_back(2, idle);
  tables.threads.emplace_back(3, waiting(kStop - 160, 0, 0));
  EXPECT_TRUE(aggregate(with_sums(tables)).waits.empty());
}

// 3200 ns asleep, woken, beaten to the lock, asleep again since 1600 ns: one
// wait of 4800 ns that is not over. The other ended one stays as it is.
TEST(InFlight, AnEpisodeThatHadWokenIsNotOver) {
  Book book;
  book.begin(kStop - 64000);
  book.end(kStop - 64000 + 48000);
  book.begin(kStop - 4800);
  book.end(kStop - 1600);
  book.begin(kStop - 1600);
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock(book, charge(48000 + 3200)));
  tables.stacks.push_back({{0xa, kProcess}, frames({1})});
  tables.waits.push_back({{kLock, 0xa}, wait_row({48000, 3200})});
  tables.releases.push_back({{kLock, 0xa}, release_row(2, 51200)});
  ls_thread thread = waiting(kStop - 1600, 0xa);
  thread.episode_ns = 3200;
  thread.sampled = 1;
  tables.threads.emplace_back(1, thread);

  const Capture capture = aggregate(with_sums(tables));
  ASSERT_EQ(capture.waits.size(), 1u);
  const WaitRow& row = capture.waits[0];
  EXPECT_EQ(row.ended.count, 1u);
  EXPECT_EQ(row.ended.total_ns, 48000u);
  EXPECT_EQ(row.ended.histogram.slots[11], 0u);
  EXPECT_EQ(row.ended.histogram.slots[15], 1u);
  EXPECT_EQ(row.in_flight, 1u);
  EXPECT_EQ(row.in_flight_ns, 4800u);
  EXPECT_EQ(row.in_flight_max_ns, 4800u);
  EXPECT_EQ(capture.locks[0].unreleased_ns, 1600);
  expect_conserved(capture);
}

// The tables are read one after the other: numbers that do not fit each other
// must not go below zero.
TEST(InFlight, AnEpisodeLongerThanItsRow) {
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock({}, 0));
  tables.waits.push_back({{kLock, 0}, wait_row({160})});
  ls_thread thread = waiting(kStop - 1600, 0);
  thread.episode_ns = 3200;
  thread.sampled = 1;
  tables.threads.emplace_back(1, thread);
  const Capture capture = aggregate(with_sums(tables));
  ASSERT_EQ(capture.waits.size(), 1u);
  EXPECT_EQ(capture.waits[0].ended.count, 0u);
  EXPECT_EQ(capture.waits[0].ended.total_ns, 0u);
  EXPECT_EQ(capture.waits[0].in_flight_ns, 1760u);
  EXPECT_EQ(capture.waits[0].ended.histogram.slots[11], 0u);
}

TEST(InFlight, BegunAfterTheEndIsNothing) {
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock({}, 0));
  tables.threads.emplace_back(1, waiting(kStop + 4800, 0));
  const Capture capture = aggregate(with_sums(tables));
  ASSERT_EQ(capture.waits.size(), 1u);
  EXPECT_EQ(capture.waits[0].in_flight, 1u);
  EXPECT_EQ(capture.waits[0].in_flight_ns, 0u);
}

TEST(InFlight, StacksOfSleepersFromBeforeAreShared) {
  RawTables tables = empty_tables();
  Book book;
  const auto asleep = [&](uint32_t tid, uint64_t process, const ls_frames& stack) {
    ls_thread thread = waiting(kStart, 0);
    thread.process = process;
    thread.before_attach = 1;
    tables.threads.emplace_back(tid, thread);
    tables.asleep_stacks[tid] = stack;
    book.begin(kStart);
  };
  asleep(1, kProcess, frames({1, 2, 3}));
  asleep(2, kProcess, frames({1, 2, 3}));
  asleep(3, kProcess, frames({1, 2}));        // shorter
  asleep(4, kProcess, frames({1, 2, 3, 4}));  // longer
  asleep(5, kOther, frames({1, 2, 3}));       // elsewhere
  asleep(6, kProcess, frames({}));
  ls_thread no_stack = waiting(kStart, 0);
  no_stack.before_attach = 1;
  tables.threads.emplace_back(7, no_stack);
  book.begin(kStart);
  tables.locks.emplace_back(kLock, make_lock(book, 0));

  const Capture capture = aggregate(with_sums(tables));
  EXPECT_EQ(capture.stacks.size(), 5u);
  ASSERT_EQ(capture.waits.size(), 6u);
  EXPECT_EQ(capture.waits[0].in_flight, 2u);
  EXPECT_EQ(capture.waits[0].before_capture, 2u);
  EXPECT_EQ(capture.waits[0].in_flight_ns, 20'000'000'000u);
  for (size_t i = 1; i < 6; i++) EXPECT_EQ(capture.waits[i].before_capture, 1u) << i;
  EXPECT_EQ(capture.waits[5].stack, kNone);
  EXPECT_EQ(capture.stacks[capture.waits[3].stack].process,
            static_cast<Index>(capture.processes.size() - 1));
  EXPECT_EQ(capture.processes.back().pid, 78);
  expect_conserved(capture);
}

TEST(Aggregate, StacksTooDeepAreCutAtTheArray) {
  RawTables tables = empty_tables();
  ls_frames deep{};
  deep.n = 4000;
  tables.stacks.push_back({{1, kProcess}, deep});
  EXPECT_EQ(aggregate(with_sums(tables)).stacks[0].addresses.size(), size_t{LS_UNWIND_MAX_FRAMES});
}

TEST(Aggregate, UnknownProcessesAreKnownByTheirPid) {
  RawTables tables = empty_tables();
  Process known;
  known.id = kProcess;
  known.pid = 77;
  known.comm = "server";
  tables.processes[kProcess] = known;
  tables.locks.emplace_back(kLock, make_lock({}, 0, kOther));
  tables.locks.emplace_back(kLock + 1, make_lock({}, 0, kProcess));
  tables.stacks.push_back({{1, kOther}, frames({1})});
  // The same PID, used again.
  tables.stacks.push_back({{2, kOther + 1}, frames({1})});
  const Capture capture = aggregate(with_sums(tables));
  ASSERT_EQ(capture.processes.size(), 3u);
  EXPECT_EQ(capture.processes[0].comm, "server");
  EXPECT_EQ(capture.locks[1].process, 0u);
  const Index stub = capture.locks[0].process;
  EXPECT_EQ(capture.processes[stub].id, kOther);
  EXPECT_EQ(capture.processes[stub].pid, 78);
  EXPECT_EQ(capture.processes[stub].comm, "");
  EXPECT_EQ(capture.stacks[0].process, stub);
  EXPECT_NE(capture.stacks[1].process, stub);
  EXPECT_EQ(capture.processes[capture.stacks[1].process].pid, 78);
}

TEST(Quality, EachLossByItsName) {
  const std::pair<ls_counter, const char*> kReasons[] = {
      {LS_LOST_LOCK_TABLE_FULL, "lock_table_full"},
      {LS_LOST_LOCK_TABLE_FULL_NS, "lock_table_full_ns"},
      {LS_LOST_WAIT_ROWS_FULL, "wait_rows_full"},
      {LS_LOST_RELEASE_ROWS_FULL, "release_rows_full"},
      {LS_LOST_PAIR_ROWS_FULL, "pair_rows_full"},
      {LS_LOST_THREAD_TABLE_FULL, "thread_table_full"},
      {LS_LOST_STACK_TABLE_FULL, "stack_table_full"},
      {LS_LOST_EXIT_MISSED, "exit_missed"},
      {LS_LOST_SHARED_KEY, "shared_key_unreadable"},
      {LS_LOST_NOTICES, "notices"},
      {LS_LOST_STACK_BUSY, "stack_busy"},
  };
  for (const auto& [counter, reason] : kReasons) {
    RawTables tables = empty_tables();
    tables.counters[counter] = 1000 + counter;
    const std::map<std::string, uint64_t> only = {{reason, 1000 + counter}};
    EXPECT_EQ(aggregate(with_sums(tables)).quality.lost, only) << reason;
  }
}

TEST(Quality, CountsThatAreNoLoss) {
  RawTables tables = empty_tables();
  tables.counters[LS_COUNT_CALLS] = 11;
  tables.counters[LS_COUNT_STACKS] = 12;
  tables.counters[LS_UNMATCHED_HOLDS] = 13;
  tables.counters[LS_COUNT_EVENTS] = 15;
  tables.counters[LS_COUNT_SAMPLED] = 14;
  const Quality quality = aggregate(with_sums(tables)).quality;
  EXPECT_EQ(quality.calls, 11u);
  EXPECT_EQ(quality.stacks_taken, 12u);
  EXPECT_EQ(quality.unmatched, 13u);
  EXPECT_EQ(quality.events, 15u);
  EXPECT_EQ(quality.sampled_events, 14u);
  EXPECT_TRUE(quality.lost.empty());
}

TEST(Quality, StacksByHowTheyEnd) {
  RawTables tables = empty_tables();
  uint64_t hash = 1;
  const auto add = [&](uint32_t flags) {
    tables.stacks.push_back({{hash++, kProcess}, frames({1}, flags)});
  };
  for (int i = 0; i < 5; i++) add(LS_UNWIND_COMPLETE);
  add(LS_UNWIND_COMPLETE | LS_UNWIND_FP_GUESS);
  for (int i = 0; i < 2; i++) add(LS_UNWIND_TRUNCATED);
  for (int i = 0; i < 3; i++) add(LS_UNWIND_BROKEN | LS_UNWIND_READ_FAULT);
  add(LS_UNWIND_NO_TABLE | LS_UNWIND_COMPLETE);
  add(LS_UNWIND_NO_TABLE | LS_UNWIND_BROKEN);
  const Quality quality = aggregate(with_sums(tables)).quality;
  EXPECT_EQ(quality.complete_stacks, 5u);
  EXPECT_EQ(quality.guessed_stacks, 1u);
  EXPECT_EQ(quality.truncated_stacks, 2u);
  EXPECT_EQ(quality.broken_stacks, 5u);
}

// Rows that found no room: their time is in the lock's books, and comes back
// without a stack.
TEST(Conservation, FullTablesOfRows) {
  Book book;
  book.begin(kStart);
  book.end(kStart + 16000);
  Book other;
  other.begin(kStart);
  other.end(kStart + 320);
  RawTables tables = empty_tables();
  tables.locks.emplace_back(kLock, make_lock(book, charge(14400)));
  tables.locks.emplace_back(kLock + 1, make_lock(other, charge(320)));
  tables.stacks.push_back({{0xa, kProcess}, frames({1})});
  tables.waits.push_back({{kLock, 0xa}, wait_row({9600})});
  tables.waits.push_back({{kLock + 1, 0xa}, wait_row({320})});
  tables.releases.push_back({{kLock, 0xa}, release_row(1, 8000)});
  tables.releases.push_back({{kLock + 1, 0xa}, release_row(1, 320)});
  tables = with_sums(tables);
  ls_lock& lock = tables.locks[0].second;
  lock.waits.total_ns += 6400;
  lock.waits.hist[12]++;
  lock.waits.max_ns = 6400;
  lock.releases.count++;
  // Sampled, too; but those that found room may be of another kind.
  tables.waits[0].second.weight_ns *= 2;
  tables.counters[LS_LOST_WAIT_ROWS_FULL] = 1;
  tables.counters[LS_LOST_RELEASE_ROWS_FULL] = 1;

  const Capture capture = aggregate(tables);
  expect_conserved(capture);
  ASSERT_EQ(capture.waits.size(), 3u);
  EXPECT_EQ(capture.waits[2].lock, 0u);
  EXPECT_EQ(capture.waits[2].stack, kNone);
  EXPECT_EQ(capture.waits[2].total_ns(), 6400u);
  EXPECT_EQ(capture.waits[2].ended.count, 1u);
  ASSERT_EQ(capture.releases.size(), 3u);
  EXPECT_EQ(capture.releases[2].lock, 0u);
  EXPECT_EQ(capture.releases[2].stack, kNone);
  EXPECT_EQ(capture.releases[2].blame_ns, 6400u);
  EXPECT_EQ(capture.releases[2].count, 1u);
}

// A busy lock played through: eight threads, waits of known lengths, some
// charged, one woken and asleep again, two from before the capture.
TEST(Conservation, WaitingEqualsAreaEqualsBlame) {
  RawTables tables = empty_tables();
  tables.stacks.push_back({{0xa, kProcess}, frames({1, 2})});
  tables.stacks.push_back({{0xb, kProcess}, frames({3, 2})});
  Book book;
  ls_wait_row rows[2]{};
  uint64_t total = 0;
  for (uint64_t i = 0; i < 5000; i++) {
    const uint64_t at = kStart + i * 1'600'000;
    const uint64_t ns = 16 * (1 + i * 7919 % 40'000);
    book.begin(at);
    book.end(at + ns);
    ls_wait_row& row = rows[i % 2];
    row.sums.total_ns += ns;
    total += ns;
    row.sums.hist[std::bit_width(ns) - 1]++;
  }
  // Woken after 3200 ns, and back to sleep.
  book.begin(kStop - 4800);
  book.end(kStop - 1600);
  book.begin(kStop - 1600);
  rows[0].sums.total_ns += 3200;
  rows[0].sums.hist[11]++;
  ls_thread back = waiting(kStop - 1600, 0xa);
  back.episode_ns = 3200;
  back.sampled = 1;
  tables.threads.emplace_back(1, back);
  for (uint32_t tid : {2, 3}) {
    ls_thread before = waiting(kStart, 0);
    before.before_attach = 1;
    tables.threads.emplace_back(tid, before);
    tables.asleep_stacks[tid] = frames({1, 2});
    book.begin(kStart);
  }
  const uint64_t blame = total - 160;
  tables.locks.emplace_back(kLock, make_lock(book, charge(static_cast<int64_t>(blame))));
  tables.waits.push_back({{kLock, 0xa}, rows[0]});
  tables.waits.push_back({{kLock, 0xb}, rows[1]});
  tables.releases.push_back({{kLock, 0xa}, release_row(10, 1600)});
  tables.releases.push_back({{kLock, 0xb}, release_row(4990, blame - 1600)});

  const Capture capture = aggregate(with_sums(tables));
  expect_conserved(capture);
  EXPECT_EQ(capture.locks[0].area_ns, total + 4800 + 20'000'000'000);
  EXPECT_EQ(capture.locks[0].unreleased_ns, 160 + 4800 + 20'000'000'000);
}

}  // namespace
}  // namespace lockscope
