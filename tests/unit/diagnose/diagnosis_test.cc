#include "diagnose/diagnosis.h"

#include <gtest/gtest.h>

#include "../capture/capture_builder.h"

namespace lockscope {
namespace {

// One lock in ten seconds of one program; each test moves one of the numbers
// across its threshold.
struct OneLock {
  const char* taken_by = "pthread_mutex_lock@libc.so.6";
  uint64_t waits = 5000;
  uint64_t wait_each_ns = 100'000;  // 0.5 s in all: 0.05 of a thread
  uint64_t holds = 100;
  uint64_t hold_each_ns = 2000;
  uint32_t waiter_threads = 4;
  uint64_t calls = 100'000;
  std::map<std::string, uint64_t> lost = {};

  Diagnosis diagnosis() const {
    CaptureBuilder made;
    const Index app = made.process(77, "app");
    const Index stack = made.stack(app, {taken_by, "work", "main"});
    Lock& lock = made.lock(app, 0x1000);
    lock.waiter_threads = waiter_threads;
    lock.waited_releases = lock.self_releases = 10;  // a semaphore is used as a lock
    made.waits(0, stack, waits, wait_each_ns);
    made.releases(0, stack, holds, waits * wait_each_ns, hold_each_ns);
    made.capture().quality.calls = calls;
    made.capture().quality.lost = lost;
    return diagnose(made.built());
  }

  Finding finding() const {
    const Diagnosis diagnosis = this->diagnosis();
    EXPECT_EQ(diagnosis.findings.size(), 1u);
    return diagnosis.findings.empty() ? Finding{} : diagnosis.findings[0];
  }

  std::string shape() const { return finding().shape; }
};

TEST(TinyGlobalLock, Matched) {
  const Finding finding = OneLock{}.finding();
  EXPECT_EQ(finding.shape, "tiny-global-lock");
  EXPECT_EQ(finding.catalogue, 1);
  EXPECT_EQ(finding.verdict, Verdict::Bug);
  // A median of 1536 ns (slot 1024..2047): 0.6 + 0.15 * (1 - 0.1536) + 0.05 * 4.
  EXPECT_NEAR(finding.confidence, 0.9, 1e-9) << "never more";
  ASSERT_EQ(finding.evidence.size(), 2u);
  EXPECT_EQ(finding.evidence[0],
            "held 1.54 µs at the median after a wait, yet waited for 500 times a second, 100 µs "
            "each time on average, by 4 threads");
  EXPECT_EQ(finding.evidence[1].substr(0, 44), "500 ms of waiting in 10.0 s: 0.05 threads' w");
  EXPECT_FALSE(finding.fix.empty());
}

TEST(TinyGlobalLock, SurerWithTinierHoldsAndMoreThreads) {
  const double two = OneLock{.hold_each_ns = 10'000, .waiter_threads = 2}.finding().confidence;
  const double three = OneLock{.hold_each_ns = 10'000, .waiter_threads = 3}.finding().confidence;
  EXPECT_NEAR(two, 0.7, 1e-9);
  EXPECT_NEAR(three, 0.75, 1e-9);
  EXPECT_NEAR((OneLock{.hold_each_ns = 2000, .waiter_threads = 2}.finding().confidence),
              0.7 + 0.15 * (1 - 0.1536), 1e-9);
}

TEST(TinyGlobalLock, JustMatchedAndJustNot) {
  EXPECT_EQ((OneLock{.holds = 50}.shape()), "tiny-global-lock");
  EXPECT_EQ((OneLock{.holds = 49}.shape()), "unknown");
  EXPECT_EQ((OneLock{.waiter_threads = 2}.shape()), "tiny-global-lock");
  EXPECT_EQ((OneLock{.waiter_threads = 1}.shape()), "unknown");
  // The longest caps the median, so it is exactly that long.
  EXPECT_EQ((OneLock{.hold_each_ns = 10'000}.shape()), "tiny-global-lock");
  EXPECT_EQ((OneLock{.hold_each_ns = 10'001}.shape()), "unknown");
  EXPECT_EQ((OneLock{.waits = 5000, .wait_each_ns = 1'000'000}.shape()), "tiny-global-lock");
  EXPECT_EQ((OneLock{.waits = 4999, .wait_each_ns = 1'000'000}.shape()), "unknown");
  EXPECT_EQ((OneLock{.waits = 10'000, .wait_each_ns = 50'000}.shape()), "tiny-global-lock");
  EXPECT_EQ((OneLock{.waits = 10'000, .wait_each_ns = 49'999}.shape()), "unknown");
  // Holds explain half of the waiting, and more than half.
  EXPECT_EQ((OneLock{.holds = 50'000, .hold_each_ns = 5000}.shape()), "tiny-global-lock");
  EXPECT_EQ((OneLock{.holds = 50'001, .hold_each_ns = 5000}.shape()), "unknown");
}

TEST(TinyGlobalLock, NotTheRuntimesOwn) {
  EXPECT_EQ((OneLock{.taken_by = "malloc@libc.so.6"}.shape()), "unknown");
}

OneLock long_hold() {
  return {.waits = 100, .wait_each_ns = 20'000'000, .holds = 30, .hold_each_ns = 2'000'000};
}

TEST(LongHold, Matched) {
  const Finding finding = long_hold().finding();
  EXPECT_EQ(finding.shape, "long-hold");
  EXPECT_EQ(finding.verdict, Verdict::Bug);
  EXPECT_NEAR(finding.confidence, 0.75, 1e-9);
  ASSERT_EQ(finding.evidence.size(), 2u);
  EXPECT_EQ(finding.evidence[0], "held 2.00 ms on average (at most 2.00 ms), 30 times after a wait");
  EXPECT_EQ(finding.evidence[1], "2.00 s of waiting in 10.0 s by 4 threads, 20.0 ms at worst");
}

TEST(LongHold, JustMatchedAndJustNot) {
  OneLock lock = long_hold();
  lock.hold_each_ns = 1'000'000;
  EXPECT_EQ(lock.shape(), "long-hold");
  lock.hold_each_ns = 999'999;
  EXPECT_EQ(lock.shape(), "unknown");
  lock = long_hold();
  lock.holds = 3;
  EXPECT_EQ(lock.shape(), "long-hold");
  lock.holds = 2;
  EXPECT_EQ(lock.shape(), "unknown");
  lock = long_hold();
  lock.wait_each_ns = 5'000'000;
  EXPECT_EQ(lock.shape(), "long-hold");
  lock.wait_each_ns = 4'999'999;
  EXPECT_EQ(lock.shape(), "unknown");
}

TEST(LongHold, SurerWhenTenTimesAsLong) {
  OneLock lock = long_hold();
  lock.hold_each_ns = 9'999'999;
  EXPECT_NEAR(lock.finding().confidence, 0.75, 1e-9);
  lock.hold_each_ns = 10'000'000;
  EXPECT_NEAR(lock.finding().confidence, 0.85, 1e-9);
}

TEST(LongHold, ASemaphoreMayAdmitSeveral) {
  OneLock lock = long_hold();
  lock.taken_by = "__new_sem_wait_slow64.constprop.0@libc.so.6";
  const Finding finding = lock.finding();
  EXPECT_EQ(finding.shape, "long-hold");
  EXPECT_NEAR(finding.confidence, 0.55, 1e-9);
  ASSERT_EQ(finding.evidence.size(), 3u);
  EXPECT_NE(finding.evidence[2].find("semaphore"), std::string::npos);
}

TEST(IdleWait, ByPrimitive) {
  for (const char* function : {"pthread_cond_wait@libc.so.6", "pthread_barrier_wait@libc.so.6", "pthread_join@libc.so.6",
                               "runtime.notesleep", "std::__atomic_wait_address"}) {
    const Finding finding = OneLock{.taken_by = function}.finding();
    EXPECT_EQ(finding.shape, "idle-wait") << function;
    EXPECT_EQ(finding.catalogue, 12);
    EXPECT_EQ(finding.verdict, Verdict::Healthy);
    EXPECT_NEAR(finding.confidence, 0.9, 1e-9);
  }
  EXPECT_EQ((OneLock{.taken_by = "pthread_mutex_lock@libc.so.6"}.finding().verdict), Verdict::Bug);
}

TEST(IdleWait, ANamelessFutexIsSurerIfAllSleepsTimeOut) {
  const auto finding_with = [](uint64_t timeouts, uint64_t ended) {
    CaptureBuilder made;
    const Index app = made.process(77, "app");
    made.lock(app, 0x1000);
    WaitRow& row = made.waits(0, made.stack(app, {"nap"}), ended, 1000);
    row.in_flight = 1;
    row.in_flight_ns = 500;
    row.timeouts = timeouts;
    return diagnose(made.built()).findings.at(0);
  };
  const Finding all = finding_with(20, 20);
  EXPECT_EQ(all.shape, "idle-wait");
  EXPECT_NEAR(all.confidence, 0.8, 1e-9);
  ASSERT_EQ(all.evidence.size(), 2u);
  EXPECT_EQ(all.evidence[0],
            "20.5 µs of waiting for another thread to wake them: 20 waits ended, 1 still asleep; "
            "nobody holds anything meanwhile");
  EXPECT_EQ(all.evidence[1], "20 of 20 sleeps ended by their own timeout");
  EXPECT_NEAR(finding_with(19, 20).confidence, 0.6, 1e-9);
  const Finding none = finding_with(0, 0);
  EXPECT_NEAR(none.confidence, 0.6, 1e-9);
  EXPECT_EQ(none.evidence.size(), 1u);
}

TEST(Unknown, SaysWhatWasMeasured) {
  CaptureBuilder made;
  const Index app = made.process(77, "app");
  const Index stack = made.stack(app, {"pthread_mutex_lock@libc.so.6", "work"});
  Lock& lock = made.lock(app, 0x1000);
  lock.owner_tid = 4242;
  lock.waiter_threads = 3;
  WaitRow& row = made.waits(0, stack, 10, 1000);
  row.in_flight = 2;
  row.in_flight_ns = row.in_flight_max_ns = 5000;
  made.releases(0, stack, 4, 10'000, 300);
  const Finding finding = diagnose(made.built()).findings.at(0);
  EXPECT_EQ(finding.shape, "unknown");
  EXPECT_EQ(finding.catalogue, 0);
  EXPECT_EQ(finding.verdict, Verdict::Unknown);
  EXPECT_EQ(finding.confidence, 0);
  EXPECT_EQ(finding.evidence,
            (std::vector<std::string>{"15.0 µs of waiting in 10.0 s by 3 threads, 12 waits, 5.00 µs at worst",
                                      "held 300 ns on average after a wait",
                                      "thread 4242 held it when the capture ended, 2 waiting"}));
}

TEST(Diagnose, VerdictsAreWithheldWhenTooMuchIsLost) {
  const char* kGrave[] = {"lock_table_full", "thread_table_full", "exit_missed", "shared_key_unreadable"};
  for (const char* reason : kGrave) {
    OneLock lock;
    lock.lost = {{reason, 1000}};  // one in a hundred
    Diagnosis diagnosis = lock.diagnosis();
    EXPECT_TRUE(diagnosis.sufficient) << reason;
    EXPECT_EQ(diagnosis.findings.at(0).shape, "tiny-global-lock") << reason;
    lock.lost = {{reason, 1001}};
    diagnosis = lock.diagnosis();
    EXPECT_FALSE(diagnosis.sufficient) << reason;
    EXPECT_EQ(diagnosis.withheld,
              (std::vector<std::string>{"1,001 of 100,000 futex calls could not be entered in the books"}));
    EXPECT_EQ(diagnosis.findings.at(0).verdict, Verdict::Unknown) << reason;
    EXPECT_EQ(diagnosis.findings.at(0).evidence.back(), "verdict withheld: " + diagnosis.withheld[0]);
  }
  EXPECT_FALSE((OneLock{.lost = {{"exit_missed", 600}, {"lock_table_full", 401}}}.diagnosis().sufficient));
  EXPECT_FALSE((OneLock{.calls = 0, .lost = {{"exit_missed", 1}}}.diagnosis().sufficient));
  EXPECT_TRUE((OneLock{.calls = 0}.diagnosis().sufficient));
}

TEST(Diagnose, LossesOfDetailDoNotWithhold) {
  for (const char* reason : {"stack_table_full", "pair_rows_full", "wait_rows_full", "notices", "stack_busy"}) {
    EXPECT_TRUE((OneLock{.lost = {{reason, 99'999}}}.diagnosis().sufficient)) << reason;
  }
}

TEST(Diagnose, WorstFirstAndHealthyLast) {
  CaptureBuilder made;
  const Index app = made.process(77, "app");
  const Index mutex = made.stack(app, {"pthread_mutex_lock@libc.so.6", "work"});
  const Index cond = made.stack(app, {"pthread_cond_wait@libc.so.6", "work"});
  made.lock(app, 0x1000);
  made.lock(app, 0x2028);
  made.lock(app, 0x3000);
  made.lock(app, 0x4028);
  made.lock(app, 0x5000);  // nobody waited: no finding
  made.waits(0, mutex, 1, 1000);
  made.waits(1, cond, 1, 9'000'000);
  made.waits(2, mutex, 1, 2000);
  made.waits(3, cond, 1, 8'000'000);
  const Diagnosis diagnosis = diagnose(made.built());
  ASSERT_EQ(diagnosis.findings.size(), 4u);
  const auto address = [&](size_t i) { return diagnosis.view.sites[diagnosis.findings[i].site].address; };
  EXPECT_EQ(address(0), 0x3000u);
  EXPECT_EQ(address(1), 0x1000u);
  EXPECT_EQ(address(2), 0x2000u);
  EXPECT_EQ(address(3), 0x4000u);
  EXPECT_EQ(diagnosis.findings[2].verdict, Verdict::Healthy);
}

TEST(Diagnose, AWaitInFlightAloneIsAFinding) {
  CaptureBuilder made;
  const Index app = made.process(77, "app");
  made.lock(app, 0x1000);
  WaitRow& row = made.waits(0, made.stack(app, {"pthread_mutex_lock@libc.so.6", "work"}), 0, 0);
  row.in_flight = 1;
  EXPECT_EQ(diagnose(made.built()).findings.size(), 1u);
}

TEST(Diagnose, NoTimeNoVerdict) {
  CaptureBuilder made;
  const Index app = made.process(77, "app");
  const Index stack = made.stack(app, {"pthread_mutex_lock@libc.so.6", "work"});
  made.lock(app, 0x1000).waiter_threads = 4;
  made.waits(0, stack, 5000, 100'000);
  made.releases(0, stack, 100, 500'000'000, 2000);
  made.capture().duration_ns = 0;
  const Diagnosis diagnosis = diagnose(made.built());
  EXPECT_EQ(diagnosis.findings.at(0).shape, "unknown");
  EXPECT_TRUE(diagnose({}).findings.empty());
}

TEST(Verdict, NamesAreThoseOfTheJson) {
  EXPECT_STREQ(to_string(Verdict::Bug), "bug");
  EXPECT_STREQ(to_string(Verdict::Healthy), "healthy");
  EXPECT_STREQ(to_string(Verdict::Unknown), "unknown");
}

}  // namespace
}  // namespace lockscope
