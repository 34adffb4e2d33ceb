#include "diagnose/primitive.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

#include "events.h"

namespace lockscope {
namespace {

// Functions, innermost first: "name@module", or "name" of the program itself.
std::vector<Frame> stack(std::initializer_list<const char*> functions) {
  std::vector<Frame> frames;
  for (const std::string function : functions) {
    const size_t at = function.find('@');
    Frame frame;
    frame.function = function.substr(0, at);
    frame.module = at == std::string::npos ? "app" : function.substr(at + 1);
    frames.push_back(frame);
  }
  return frames;
}

std::string kind_of(std::initializer_list<const char*> functions, uint32_t traits = 0) {
  return to_string(classify_wait(stack(functions), traits));
}

TEST(ClassifyWait, Glibc) {
  EXPECT_EQ(kind_of({"__lll_lock_wait@libc.so.6", "__pthread_mutex_lock@libc.so.6", "work"}), "mutex");
  EXPECT_EQ(kind_of({"___pthread_mutex_lock@libpthread-2.31.so", "work"}), "mutex");
  EXPECT_EQ(kind_of({"__futex_abstimed_wait_common64@libc.so.6", "__pthread_rwlock_wrlock_full64@libc.so.6",
                     "__pthread_rwlock_wrlock@libc.so.6", "work"}),
            "rwlock");
  EXPECT_EQ(kind_of({"__futex_abstimed_wait_common@libc.so.6", "__pthread_cond_wait_common@libc.so.6",
                     "___pthread_cond_wait@libc.so.6", "work"}),
            "cond");
  EXPECT_EQ(kind_of({"__new_sem_wait_slow64.constprop.0@libc.so.6", "work"}), "sem");
  EXPECT_EQ(kind_of({"do_futex_wait.constprop.0@libc.so.6", "sem_wait@libc.so.6", "work"}), "sem");
  EXPECT_EQ(kind_of({"futex_wait@libc.so.6", "__pthread_barrier_wait@libc.so.6", "work"}), "barrier");
  EXPECT_EQ(kind_of({"__futex_abstimed_wait_common@libc.so.6", "__pthread_clockjoin_ex@libc.so.6", "main"}), "join");
  EXPECT_EQ(kind_of({"__pthread_timedjoin_np64@libc.so.6", "main"}), "join");
  EXPECT_EQ(kind_of({"futex_wait@libc.so.6", "__pthread_once_slow@libc.so.6", "work"}), "once");
  EXPECT_EQ(kind_of({"syscall@libc.so.6", "__cxa_guard_acquire@libstdc++.so.6", "work"}), "once");
  EXPECT_EQ(kind_of({"mtx_lock@libc.so.6", "work"}), "mutex");
  EXPECT_EQ(kind_of({"cnd_wait@libc.so.6", "work"}), "cond");
}

TEST(ClassifyWait, TheMutexInsideAConditionWait) {
  EXPECT_EQ(kind_of({"__lll_lock_wait@libc.so.6", "__pthread_mutex_cond_lock@libc.so.6",
                     "__pthread_cond_wait@libc.so.6", "work"}),
            "mutex");
  // Without the name of the local function, the values tell.
  constexpr uint32_t kMutexWord = LS_TRAIT_PLAIN_WAIT | LS_TRAIT_VAL_2 | LS_TRAIT_SELF_RELEASE;
  const auto in_cond = {"libc.so.6+0x8a1b2@libc.so.6", "pthread_cond_wait@libc.so.6", "work"};
  EXPECT_EQ(kind_of(in_cond, kMutexWord), "mutex");
  EXPECT_EQ(kind_of(in_cond, kMutexWord & ~LS_TRAIT_SELF_RELEASE), "cond");
  EXPECT_EQ(kind_of(in_cond, kMutexWord & ~LS_TRAIT_VAL_2), "cond");
  EXPECT_EQ(kind_of(in_cond, kMutexWord & ~LS_TRAIT_PLAIN_WAIT), "cond");
  EXPECT_EQ(kind_of({"pthread_rwlock_rdlock@libc.so.6", "work"}, kMutexWord), "rwlock");
}

TEST(ClassifyWait, StandardCplusplus) {
  EXPECT_EQ(kind_of({"__lll_lock_wait@libc.so.6", "pthread_mutex_lock@libc.so.6", "__gthread_mutex_lock",
                     "std::mutex::lock", "std::lock_guard<std::mutex>::lock_guard", "work"}),
            "mutex");
  EXPECT_EQ(kind_of({"pthread_cond_wait@libc.so.6",
                     "std::condition_variable::wait@libstdc++.so.6", "work"}),
            "cond");
  EXPECT_EQ(kind_of({"syscall@libc.so.6", "std::__detail::__platform_wait<int>", "work"}), "latch");
  EXPECT_EQ(kind_of({"syscall@libc.so.6", "std::__atomic_wait_address<int>", "std::latch::wait", "work"}), "latch");
}

TEST(ClassifyWait, Rust) {
  EXPECT_EQ(kind_of({"syscall@libc.so.6", "std::sys::pal::unix::futex::futex_wait",
                     "std::sys::sync::mutex::futex::Mutex::lock_contended", "app::work"}),
            "mutex");
  EXPECT_EQ(kind_of({"std::sys::unix::locks::futex_mutex::Mutex::lock_contended", "app::work"}), "mutex");
  EXPECT_EQ(kind_of({"std::sys::sync::rwlock::futex::RwLock::read_contended", "app::work"}), "rwlock");
  EXPECT_EQ(kind_of({"std::sys::sync::condvar::futex::Condvar::wait_optional_timeout", "app::work"}), "cond");
  EXPECT_EQ(kind_of({"std::sys::sync::once::futex::Once::call", "app::work"}), "once");
  EXPECT_EQ(kind_of({"std::sys::sync::thread_parking::futex::Parker::park", "std::thread::park"}), "park");
  EXPECT_EQ(kind_of({"std::thread::park", "app::work"}), "park");
}

TEST(ClassifyWait, GoRuntime) {
  EXPECT_EQ(kind_of({"runtime.futex", "runtime.futexsleep", "runtime.lock2", "runtime.newproc"}), "runtime-lock");
  EXPECT_EQ(kind_of({"runtime.futex", "runtime.futexsleep", "runtime.notesleep", "runtime.mPark"}), "park");
  EXPECT_EQ(kind_of({"runtime.futex", "runtime.futexsleep", "runtime.notetsleep_internal"}), "park");
}

TEST(ClassifyWait, LocksInsideGlibc) {
  EXPECT_EQ(kind_of({"__lll_lock_wait_private@libc.so.6", "_int_free@libc.so.6", "__libc_free@libc.so.6", "work"}),
            "runtime-lock");
  EXPECT_EQ(kind_of({"__lll_lock_wait_private@libc.so.6", "arena_get2.part.0@libc.so.6", "malloc@libc.so.6"}),
            "runtime-lock");
  EXPECT_EQ(kind_of({"__lll_lock_wait_private@libc.so.6", "_IO_puts@libc.so.6", "work"}), "runtime-lock");
  EXPECT_EQ(kind_of({"__lll_lock_wait_private@libc.so.6", "malloc@libc-2.31.so", "work"}), "runtime-lock");
  // The program's own function of such a name is none of libc's.
  EXPECT_EQ(kind_of({"futex_wait", "free_list_insert", "work"}), "futex");
}

TEST(ClassifyWait, FunctionsOfTheProgramEndTheSearch) {
  EXPECT_EQ(kind_of({"syscall@libc.so.6", "my_event_wait", "pthread_once@libc.so.6"}), "futex");
  EXPECT_EQ(kind_of({}), "futex");
  EXPECT_EQ(kind_of({"__@libc.so.6", "@libc.so.6"}), "futex");
}

TEST(ClassifyWait, StrippedOnlyTraits) {
  const auto of = [](uint32_t traits) {
    return kind_of({"libc.so.6+0x8b1c3@libc.so.6", "app+0x1234"}, traits);
  };
  EXPECT_EQ(of(0), "futex");
  EXPECT_EQ(of(LS_TRAIT_PLAIN_WAIT | LS_TRAIT_VAL_2), "mutex");
  EXPECT_EQ(of(LS_TRAIT_PLAIN_WAIT | LS_TRAIT_VAL_OWNED), "mutex");
  EXPECT_EQ(of(LS_TRAIT_PI), "mutex");
  EXPECT_EQ(of(LS_TRAIT_PI | LS_TRAIT_VAL_OTHER), "mutex");
  EXPECT_EQ(of(LS_TRAIT_REQUEUE_TARGET), "mutex");
  EXPECT_EQ(of(LS_TRAIT_THREAD_EXIT | LS_TRAIT_VAL_OTHER), "join");
  // A word that takes other values as well is a counter.
  EXPECT_EQ(of(LS_TRAIT_VAL_2 | LS_TRAIT_VAL_0), "futex");
  EXPECT_EQ(of(LS_TRAIT_VAL_2 | LS_TRAIT_VAL_3), "futex");
  EXPECT_EQ(of(LS_TRAIT_VAL_2 | LS_TRAIT_VAL_OTHER), "futex");
  EXPECT_EQ(of(LS_TRAIT_BITSET_WAIT | LS_TRAIT_VAL_0), "futex");
}

TEST(Primitive, NamesAreThoseOfTheJson) {
  const char* kNames[] = {"futex", "mutex", "rwlock", "cond", "sem", "barrier",
                          "join",  "once",  "park",   "runtime-lock", "latch"};
  for (int i = 0; i < 11; i++) EXPECT_STREQ(to_string(static_cast<Primitive>(i)), kNames[i]);
}

TEST(IsLockWait, ByPrimitiveAndForTheRestByWhoReleases) {
  for (const Primitive lock : {Primitive::Mutex, Primitive::Rwlock, Primitive::Once, Primitive::RuntimeLock}) {
    EXPECT_TRUE(is_lock_wait(lock, 0)) << to_string(lock);
    EXPECT_TRUE(is_lock_wait(lock, 1)) << to_string(lock);
  }
  for (const Primitive idle : {Primitive::Cond, Primitive::Barrier, Primitive::Join, Primitive::Park, Primitive::Latch}) {
    EXPECT_FALSE(is_lock_wait(idle, 0)) << to_string(idle);
    EXPECT_FALSE(is_lock_wait(idle, 1)) << to_string(idle);
  }
  for (const Primitive either : {Primitive::Sem, Primitive::Unknown}) {
    EXPECT_FALSE(is_lock_wait(either, 0));
    EXPECT_FALSE(is_lock_wait(either, 0.499));
    EXPECT_TRUE(is_lock_wait(either, 0.5));
    EXPECT_TRUE(is_lock_wait(either, 1));
  }
}

TEST(WordOffset, WordsOfOneObjectMeet) {
  constexpr uint64_t kObject = 0x7f0000001000;
  EXPECT_EQ(word_offset(Primitive::Cond, kObject + 40, 0), 40u);
  EXPECT_EQ(word_offset(Primitive::Cond, kObject + 44, 0), 44u);
  EXPECT_EQ(word_offset(Primitive::Rwlock, kObject, LS_TRAIT_VAL_OTHER), 0u);
  EXPECT_EQ(word_offset(Primitive::Rwlock, kObject + 8, LS_TRAIT_VAL_2), 8u);
  EXPECT_EQ(word_offset(Primitive::Rwlock, kObject + 8, LS_TRAIT_VAL_3 | LS_TRAIT_VAL_OTHER), 8u);
  EXPECT_EQ(word_offset(Primitive::Rwlock, kObject + 12, LS_TRAIT_VAL_OTHER), 12u);
  for (const Primitive other : {Primitive::Unknown, Primitive::Mutex, Primitive::Sem, Primitive::Barrier, Primitive::Join}) {
    EXPECT_EQ(word_offset(other, kObject + 4, LS_TRAIT_VAL_2), 0u) << to_string(other);
  }
}

TEST(IsLockInternals, MachineryAndWrappers) {
  const auto internal = [](const char* name) { return is_lock_internals({name, "", 0, "app", false}); };
  for (const char* name : {"__lll_lock_wait", "___pthread_mutex_lock", "__futex_abstimed_wait_common64", "syscall",
                           "std::mutex::lock", "std::lock_guard<std::mutex>::lock_guard", "runtime.futexsleep",
                           "std::sys::sync::mutex::futex::Mutex::lock", "MutexLock::Lock", "leveldb::port::Mutex::Lock",
                           "std::unique_lock<std::mutex>::unique_lock", "__gthread_mutex_lock"}) {
    EXPECT_TRUE(internal(name)) << name;
  }
  for (const char* name : {"", "main", "Cache::get", "unlock_account", "Database::LockTable", "blocks::Block",
                           "std::thread::_State_impl", "runtime.lock2"}) {
    EXPECT_FALSE(internal(name)) << name;
  }
}

TEST(IsSystemLibrary, ByModule) {
  for (const char* module : {"libc.so.6", "libc-2.31.so", "libpthread.so.0", "libstdc++.so.6.0.30", "ld-musl-x86_64.so.1", "[vdso]"}) {
    EXPECT_TRUE(is_system_library({"f", "", 0, module, false})) << module;
  }
  for (const char* module : {"", "app", "libcrypto.so.3", "libcache.so", "my-libc.so"}) {
    EXPECT_FALSE(is_system_library({"f", "", 0, module, false})) << module;
  }
}

}  // namespace
}  // namespace lockscope
