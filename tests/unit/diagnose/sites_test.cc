#include "diagnose/sites.h"

#include <gtest/gtest.h>

#include "../capture/capture_builder.h"
#include "pthread_tier.h"

namespace lockscope {
namespace {

constexpr uint64_t kObject = 0x7f0000001000;

class Sites : public testing::Test {
 protected:
  SiteView view() { return build_sites(made_.built()); }

  // The sums that every capture must keep.
  void expect_blame_equals_waiting(const SiteView& view) {
    uint64_t waiting = 0;
    int64_t blame = 0;
    for (const ProcessTotals& totals : view.totals) {
      waiting += totals.lock_wait_ns;
      blame += totals.blame_ns;
    }
    EXPECT_EQ(blame, static_cast<int64_t>(waiting));
  }

  CaptureBuilder made_;
  const Index app_ = made_.process(77, "app");
  const Index mutex_ = made_.stack(app_, {"__lll_lock_wait@libc.so.6", "pthread_mutex_lock@libc.so.6",
                                          "std::mutex::lock", "Store::append", "main"});
  const Index cond_ = made_.stack(app_, {"pthread_cond_wait@libc.so.6", "Queue::pop", "main"});
  const Index sem_ = made_.stack(app_, {"__new_sem_wait_slow64.constprop.0@libc.so.6", "Gate::enter"});
  const Index unlock_ = made_.stack(app_, {"pthread_mutex_unlock@libc.so.6", "Store::flush", "main"});
};

TEST_F(Sites, NothingIsNothing) {
  const SiteView view = build_sites({});
  EXPECT_TRUE(view.sites.empty());
  EXPECT_TRUE(view.totals.empty());
  EXPECT_TRUE(view.site_of_lock.empty());
}

TEST_F(Sites, EverythingOfOneLock) {
  Lock& lock = made_.lock(app_, kObject, LS_TRAIT_VAL_2);
  lock.waiter_threads = 8;
  lock.releaser_threads = 7;
  lock.max_waiters = 6;
  lock.owner_tid = 99;
  lock.unreleased_ns = 300;
  lock.waited_releases = 11;
  lock.self_releases = 10;
  WaitRow& row = made_.waits(0, mutex_, 10, 1000);
  row.sleeps = 12;
  row.timeouts = 1;
  row.in_flight = 2;
  row.in_flight_ns = 5000;
  row.in_flight_max_ns = 4000;
  made_.waits(0, unlock_, 1, 200);
  made_.releases(0, unlock_, 4, 14'900, 50);

  const SiteView view = this->view();
  ASSERT_EQ(view.sites.size(), 1u);
  const Site& site = view.sites[0];
  EXPECT_EQ(site.primitive, Primitive::Mutex);
  EXPECT_TRUE(site.is_lock);
  EXPECT_FALSE(site.shared);
  EXPECT_EQ(site.process, app_);
  EXPECT_EQ(site.address, kObject);
  EXPECT_EQ(site.traits, LS_TRAIT_VAL_2);
  EXPECT_EQ(site.owner_tid, 99);
  EXPECT_EQ(site.wait.count, 11u);
  EXPECT_EQ(site.wait.total_ns, 10'200u);
  EXPECT_EQ(site.wait.max_ns, 1000u);
  EXPECT_EQ(site.wait.histogram.count(), 11u);
  EXPECT_EQ(site.in_flight, 2u);
  EXPECT_EQ(site.in_flight_ns, 5000u);
  EXPECT_EQ(site.wait_ns(), 15'200u);
  EXPECT_EQ(site.max_wait_ns(), 4000u);
  EXPECT_EQ(site.sleeps, 13u);
  EXPECT_EQ(site.timeouts, 1u);
  EXPECT_EQ(site.blame_ns, 14'900u);
  EXPECT_EQ(site.unreleased_ns, 300);
  EXPECT_EQ(site.hold.count, 4u);
  EXPECT_EQ(site.hold.total_ns, 200u);
  EXPECT_EQ(site.waiters, 8u);
  EXPECT_EQ(site.holders, 7u);
  EXPECT_EQ(site.max_waiters, 6u);
  EXPECT_EQ(site.waited_releases, 11u);
  EXPECT_EQ(site.self_releases, 10u);
  ASSERT_EQ(site.waiter_stacks.size(), 2u);
  EXPECT_EQ(site.waiter_stacks[0].stack, mutex_);
  EXPECT_EQ(site.waiter_stacks[0].ns, 15'000u);
  EXPECT_EQ(site.waiter_stacks[0].count, 12u);
  ASSERT_EQ(site.holder_stacks.size(), 1u);
  EXPECT_EQ(site.holder_stacks[0].ns, 14'900u);
  EXPECT_EQ(site.holder_stacks[0].count, 4u);
  ASSERT_EQ(site.hold_stacks.size(), 1u);
  EXPECT_EQ(site.hold_stacks[0].ns, 200u);
  EXPECT_EQ(site.name, "mutex in Store::append");
  EXPECT_EQ(view.totals[app_].lock_wait_ns, 15'200u);
  EXPECT_EQ(view.totals[app_].idle_wait_ns, 0u);
  EXPECT_EQ(view.totals[app_].blame_ns, 15'200);
}

TEST_F(Sites, WordsOfAConditionMeet) {
  made_.lock(app_, kObject + 40).waiter_threads = 3;
  made_.lock(app_, kObject + 44).waiter_threads = 5;
  made_.lock(app_, kObject + 48 + 40);  // the next one, right behind
  made_.waits(0, cond_, 1, 1000);
  made_.waits(1, cond_, 2, 1000);
  made_.waits(2, cond_, 1, 100);
  const SiteView view = this->view();
  ASSERT_EQ(view.sites.size(), 2u);
  EXPECT_EQ(view.sites[0].address, kObject);
  EXPECT_EQ(view.sites[0].wait.total_ns, 3000u);
  EXPECT_EQ(view.sites[0].waiters, 5u);
  ASSERT_EQ(view.sites[0].waiter_stacks.size(), 1u);
  EXPECT_EQ(view.sites[0].waiter_stacks[0].count, 3u);
  EXPECT_EQ(view.sites[1].address, kObject + 48);
  EXPECT_EQ(view.site_of_lock, (std::vector<Index>{0, 0, 1}));
  EXPECT_EQ(view.totals[app_].idle_wait_ns, 3100u);
  EXPECT_EQ(view.totals[app_].lock_wait_ns, 0u);
}

TEST_F(Sites, WordsOfARwlockMeet) {
  const Index read = made_.stack(app_, {"pthread_rwlock_rdlock@libc.so.6", "Table::get"});
  const Index write = made_.stack(app_, {"pthread_rwlock_wrlock@libc.so.6", "Table::put"});
  made_.lock(app_, kObject + 8, LS_TRAIT_VAL_3).unreleased_ns = -50;
  made_.lock(app_, kObject + 12, LS_TRAIT_VAL_OTHER).unreleased_ns = 70;
  made_.lock(app_, kObject, LS_TRAIT_VAL_OTHER);
  made_.waits(0, read, 1, 1000);
  made_.waits(1, write, 1, 300);
  made_.waits(2, write, 1, 20);
  const SiteView view = this->view();
  ASSERT_EQ(view.sites.size(), 1u);
  EXPECT_EQ(view.sites[0].primitive, Primitive::Rwlock);
  EXPECT_EQ(view.sites[0].address, kObject);
  EXPECT_EQ(view.sites[0].wait_ns(), 1320u);
  EXPECT_EQ(view.sites[0].unreleased_ns, 20);
  EXPECT_EQ(view.sites[0].name, "rwlock in Table::get");
}

TEST_F(Sites, JoinsOfOneProcessAreOnePlace) {
  const Index other = made_.process(78, "other");
  const Index join = made_.stack(app_, {"__pthread_clockjoin_ex@libc.so.6", "main"});
  const Index join_other = made_.stack(other, {"pthread_join@libc.so.6", "main"});
  for (const uint64_t address : {0x1000, 0x2000, 0x3000}) made_.lock(app_, address);
  made_.lock(other, 0x1000);
  for (Index i = 0; i < 3; i++) made_.waits(i, join, 1, 100);
  made_.waits(3, join_other, 1, 50);
  const SiteView view = this->view();
  ASSERT_EQ(view.sites.size(), 2u);
  EXPECT_EQ(view.sites[0].wait.count, 3u);
  EXPECT_EQ(view.sites[0].process, app_);
  EXPECT_FALSE(view.sites[0].is_lock);
  EXPECT_EQ(view.sites[1].process, other);
}

TEST_F(Sites, OneAddressInTwoProcessesIsTwoLocks) {
  const Index other = made_.process(78, "other");
  made_.lock(app_, kObject, LS_TRAIT_VAL_2);
  made_.lock(other, kObject, LS_TRAIT_VAL_2);
  made_.waits(0, mutex_, 1, 100);
  EXPECT_EQ(view().sites.size(), 2u);
}

TEST_F(Sites, SharedLocksAcrossProcesses) {
  const Index other = made_.process(78, "other");
  const Index theirs = made_.stack(other, {"pthread_rwlock_wrlock@libc.so.6", "Child::put"});
  const Index ours = made_.stack(app_, {"pthread_rwlock_rdlock@libc.so.6", "Parent::get"});
  const auto shared = [&](Index process, uint64_t address, uint64_t offset, uint32_t device) -> Lock& {
    Lock& lock = made_.lock(process, address, LS_TRAIT_VAL_2 | LS_TRAIT_SHARED);
    lock.shared = true;
    lock.inode = 5;
    lock.file_offset = offset;
    lock.device = device;
    return lock;
  };
  shared(app_, 0x10008, 0x108, 1).unreleased_ns = 400;
  shared(other, 0x5000c, 0x10c, 1);  // the same object, mapped elsewhere
  shared(app_, 0x20008, 0x108, 2);   // another file system's inode 5
  made_.waits(0, ours, 1, 1000);
  made_.waits(1, theirs, 3, 1000);
  made_.waits(2, ours, 1, 10);
  made_.releases(0, theirs, 1, 600);
  made_.releases(1, ours, 1, 3000);
  made_.releases(2, theirs, 1, 10);
  const SiteView view = this->view();
  ASSERT_EQ(view.sites.size(), 2u);
  EXPECT_TRUE(view.sites[0].shared);
  EXPECT_EQ(view.sites[0].wait_ns(), 4000u);
  EXPECT_EQ(view.sites[0].process, other) << "most of the waiting";
  EXPECT_EQ(view.sites[0].name, "rwlock in Child::put");
  EXPECT_EQ(view.totals[app_].lock_wait_ns, 1010u);
  EXPECT_EQ(view.totals[other].lock_wait_ns, 3000u);
  EXPECT_EQ(view.totals[app_].blame_ns, 3000 + 400);
  EXPECT_EQ(view.totals[other].blame_ns, 610);
  expect_blame_equals_waiting(view);
}

// Blame of idle waiting is nobody's; what is not released yet, and stacks that
// were lost, are the lock's process's.
TEST_F(Sites, BlameEqualsLockWaitingOverAllProcesses) {
  const Index other = made_.process(78, "other");
  made_.lock(app_, 0x1000, LS_TRAIT_VAL_2).unreleased_ns = 30;
  made_.lock(app_, 0x2028).unreleased_ns = 999;  // a condition
  made_.lock(other, 0x3000, LS_TRAIT_VAL_2).unreleased_ns = -20;
  made_.waits(0, mutex_, 7, 100);
  made_.waits(0, kNone, 1, 40);
  made_.waits(1, cond_, 5, 1000);
  made_.waits(2, kNone, 1, 80);
  made_.releases(0, unlock_, 7, 650);
  made_.releases(0, kNone, 1, 60);
  made_.releases(1, unlock_, 5, 4001);
  made_.releases(2, kNone, 1, 100);
  const SiteView view = this->view();
  EXPECT_EQ(view.totals[app_].lock_wait_ns, 740u);
  EXPECT_EQ(view.totals[app_].idle_wait_ns, 5000u);
  EXPECT_EQ(view.totals[app_].blame_ns, 740);
  EXPECT_EQ(view.totals[other].lock_wait_ns, 80u);
  EXPECT_EQ(view.totals[other].blame_ns, 80);
  expect_blame_equals_waiting(view);
}

TEST_F(Sites, RowsWithoutALockAreNoSite) {
  made_.lock(app_, 0x1000, LS_TRAIT_VAL_2);
  made_.waits(kNone, mutex_, 7, 100);
  made_.releases(kNone, unlock_, 7, 100);
  const SiteView view = this->view();
  ASSERT_EQ(view.sites.size(), 1u);
  EXPECT_EQ(view.sites[0].wait_ns(), 0u);
  EXPECT_EQ(view.totals[app_].lock_wait_ns, 0u);
}

TEST_F(Sites, HoldsOfWhichTooManyWereRefusedAreDropped) {
  // One in ten may be missing: with 9 told, 1 refused is just that.
  for (const auto& [refused, told, kept] : {std::tuple{1u, 9u, true}, {2u, 9u, false}, {2u, 18u, true},
                                            {2u, 17u, false}, {0u, 1u, true}, {1u, 0u, false}}) {
    CaptureBuilder made;
    const Index app = made.process(77, "app");
    const Index stack = made.stack(app, {"pthread_mutex_lock@libc.so.6", "work"});
    made.lock(app, kObject).refused_holds = refused;
    made.waits(0, stack, 20, 100);
    made.releases(0, stack, told, 2000, 50);
    const SiteView view = build_sites(made.built());
    EXPECT_EQ(view.sites[0].hold.count, kept ? told : 0) << refused << " of " << told;
    EXPECT_EQ(view.sites[0].hold_stacks.size(), kept ? 1u : 0u) << refused << " of " << told;
    EXPECT_EQ(view.sites[0].refused_holds, refused);
    EXPECT_EQ(view.sites[0].holder_stacks.size(), 1u) << "blame stays";
  }
}

TEST_F(Sites, NothingIsHeldWhereThreadsWaitForWork) {
  made_.lock(app_, kObject + 40);
  made_.waits(0, cond_, 20, 100);
  made_.releases(0, unlock_, 20, 2000, 50);
  const SiteView view = this->view();
  EXPECT_EQ(view.sites[0].hold.count, 0u);
  EXPECT_TRUE(view.sites[0].hold_stacks.empty());
}

TEST_F(Sites, ASemaphoreIsALockIfItsWaitersPostIt) {
  for (const auto& [waited, self, lock] : {std::tuple{10u, 5u, true}, {10u, 4u, false}, {0u, 0u, false}, {10u, 10u, true}}) {
    CaptureBuilder made = made_;
    Lock& word = made.lock(app_, kObject);
    word.waited_releases = waited;
    word.self_releases = self;
    made.waits(0, sem_, 1, 100);
    const SiteView view = build_sites(made.built());
    EXPECT_EQ(view.sites[0].primitive, Primitive::Sem);
    EXPECT_EQ(view.sites[0].is_lock, lock) << self << " of " << waited;
    EXPECT_EQ(view.totals[app_].lock_wait_ns, lock ? 100u : 0u);
    EXPECT_EQ(view.totals[app_].idle_wait_ns, lock ? 0u : 100u);
  }
}

TEST_F(Sites, MostOfTheWaitingNamesThePrimitive) {
  const Index unnamed = made_.stack(app_, {"libc.so.6+0x1@libc.so.6", "work"});
  made_.lock(app_, kObject);
  made_.waits(0, unnamed, 100, 1000);  // does not outvote a name
  made_.waits(0, sem_, 1, 50);
  made_.waits(0, mutex_, 1, 90);
  EXPECT_EQ(view().sites[0].primitive, Primitive::Mutex);
}

TEST_F(Sites, WithoutWaitsTheTraitsName) {
  made_.lock(app_, kObject, LS_TRAIT_PI);
  EXPECT_EQ(view().sites[0].primitive, Primitive::Mutex);
}

TEST_F(Sites, MostWaitingFirstAndIndicesFollow) {
  for (int i = 0; i < 4; i++) made_.lock(app_, kObject + 0x100 * i, LS_TRAIT_VAL_2);
  made_.waits(0, mutex_, 1, 200);
  made_.waits(1, mutex_, 1, 400);
  made_.waits(2, mutex_, 1, 300);
  made_.waits(3, mutex_, 1, 150).in_flight_ns = 150;  // 300 with what is in flight
  const SiteView view = this->view();
  EXPECT_EQ(view.site_of_lock, (std::vector<Index>{3, 0, 1, 2}));
  for (Index i = 0; i < 4; i++) EXPECT_EQ(view.sites[view.site_of_lock[i]].address, kObject + 0x100 * i);
}

TEST_F(Sites, StacksMostTimeFirstThenMostOften) {
  const Index third = made_.stack(app_, {"pthread_mutex_lock@libc.so.6", "third"});
  made_.lock(app_, kObject);
  made_.waits(0, mutex_, 1, 100);
  made_.waits(0, third, 2, 50);
  made_.waits(0, unlock_, 1, 500);
  made_.releases(0, mutex_, 1, 10, 700);
  made_.releases(0, unlock_, 1, 690, 600);
  const Site site = view().sites[0];
  ASSERT_EQ(site.waiter_stacks.size(), 3u);
  EXPECT_EQ(site.waiter_stacks[0].stack, unlock_);
  EXPECT_EQ(site.waiter_stacks[1].stack, third);
  EXPECT_EQ(site.waiter_stacks[2].stack, mutex_);
  EXPECT_EQ(site.holder_stacks[0].stack, unlock_);
  EXPECT_EQ(site.hold_stacks[0].stack, mutex_);
}

TEST_F(Sites, NamedByVariableElseByFunctionElseByKind) {
  const Index bare = made_.stack(app_, {"__lll_lock_wait@libc.so.6", "pthread_mutex_lock@libc.so.6"});
  made_.lock(app_, 0x1000).object = "g_sessions";
  made_.lock(app_, 0x2000);
  made_.lock(app_, 0x3000);
  made_.waits(0, mutex_, 4, 100);
  made_.waits(1, bare, 3, 100);                  // a stack with nothing of the program
  made_.releases(1, unlock_, 1, 300);            // its releases have
  made_.waits(2, bare, 2, 100);
  const SiteView view = this->view();
  EXPECT_EQ(view.sites[0].name, "g_sessions");
  EXPECT_EQ(view.sites[1].name, "mutex in Store::flush");
  EXPECT_EQ(view.sites[2].name, "mutex");
}

TEST_F(Sites, NamedByThePlaceInAVariable) {
  const auto name_of = [&](Index waiter, uint64_t address, uint64_t offset) {
    Lock& lock = made_.lock(app_, address);
    lock.object = "g_server";
    lock.object_offset = offset;
    const auto which = static_cast<Index>(made_.capture().locks.size() - 1);
    made_.waits(which, waiter, 1, 100);
    const SiteView view = this->view();
    return view.sites[view.site_of_lock[which]].name;
  };
  EXPECT_EQ(name_of(mutex_, 0x1040, 0x40), "g_server+0x40");
  EXPECT_EQ(name_of(mutex_, 0x2000, 0), "g_server");
  // A condition variable's words are 40 and 44 bytes into it.
  const Index cond = made_.stack(
      app_, {"__futex_abstimed_wait_common@libc.so.6", "pthread_cond_wait@libc.so.6", "Pool::take@app"});
  EXPECT_EQ(name_of(cond, 0x3028, 40), "g_server");
  EXPECT_EQ(name_of(cond, 0x402c, 0x10 + 44), "g_server+0x10");
}

TEST_F(Sites, CallingFrame) {
  const auto& frames = made_.frames();
  EXPECT_EQ(calling_frame(frames[mutex_]), &frames[mutex_][3]);
  EXPECT_EQ(calling_frame(frames[cond_]), &frames[cond_][1]);
  EXPECT_EQ(calling_frame({}), nullptr);
  const std::vector<Frame> libraries = {{"start_thread", "", 0, "libc.so.6", false},
                                        {"pthread_mutex_lock", "", 0, "app", false}};
  EXPECT_EQ(calling_frame(libraries), nullptr);
}

TEST_F(Sites, ObjectsOfThePthreadTierSayWhatTheirWordsAre) {
  // Waited for by a stack without names, 8 bytes into a rwlock.
  const Index nameless = made_.stack(app_, {"", "main"});
  made_.lock(app_, kObject + 8, LS_TRAIT_VAL_3);
  made_.waits(0, nameless, 1, 1000);
  PthreadObject rwlock;
  rwlock.process = app_;
  rwlock.address = kObject;
  rwlock.kind = LS_OBJECT_RWLOCK;
  rwlock.hold.count = 5;
  rwlock.hold.total_ns = 500;
  rwlock.read_hold.count = 7;
  rwlock.read_hold.total_ns = 70;
  rwlock.held = 1;
  rwlock.held_ns = 9;
  PthreadObject idle = rwlock;
  idle.address = kObject + 0x1000;
  idle.kind = LS_OBJECT_SPIN;
  idle.object = "g_spin";
  idle.object_offset = 16;
  PthreadObject cond = rwlock;
  cond.address = kObject + 0x2000;
  cond.kind = LS_OBJECT_COND;
  made_.capture().objects = {rwlock, idle, cond};
  made_.capture().holds = {{0, unlock_, 12, 570}, {1, unlock_, 12, 570}};

  const SiteView view = this->view();
  ASSERT_EQ(view.sites.size(), 2u) << "nobody waited for the condition: no site";
  EXPECT_EQ(view.sites[0].primitive, Primitive::Rwlock);
  EXPECT_EQ(view.sites[0].address, kObject);
  EXPECT_TRUE(view.sites[0].is_lock);
  EXPECT_EQ(view.sites[0].wait_ns(), 1000u);
  EXPECT_EQ(view.sites[0].hold.count, 13u);
  EXPECT_EQ(view.sites[0].hold.total_ns, 579u);
  ASSERT_EQ(view.sites[0].hold_stacks.size(), 1u);
  EXPECT_EQ(view.sites[0].hold_stacks[0].count, 12u);
  EXPECT_EQ(view.sites[1].primitive, Primitive::Spin);
  EXPECT_EQ(view.sites[1].name, "g_spin+0x10");
  EXPECT_EQ(view.sites[1].wait_ns(), 0u);
}

}  // namespace
}  // namespace lockscope
