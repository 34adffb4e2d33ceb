#include "diagnose/primitive.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "pthread_tier.h"

namespace lockscope {
namespace {

struct NameRule {
  std::string_view prefix;
  Primitive primitive;
};

// By the beginning of a function's name, leading underscores taken off. The
// first frame that matches decides, innermost first; among the rules the first.
constexpr NameRule kNames[] = {
    // glibc, musl
    {"pthread_mutex_cond_lock", Primitive::Mutex},
    {"pthread_mutex_", Primitive::Mutex},
    {"pthread_rwlock_", Primitive::Rwlock},
    {"pthread_cond_", Primitive::Cond},
    {"pthread_barrier_", Primitive::Barrier},
    {"pthread_clockjoin", Primitive::Join},
    {"pthread_timedjoin", Primitive::Join},
    {"pthread_tryjoin", Primitive::Join},
    {"pthread_join", Primitive::Join},
    {"pthread_once", Primitive::Once},
    {"new_sem_", Primitive::Sem},
    {"sem_", Primitive::Sem},
    {"mtx_", Primitive::Mutex},
    {"cnd_", Primitive::Cond},
    {"call_once", Primitive::Once},
    {"cxa_guard_acquire", Primitive::Once},
    // C++20's own waiting: std::atomic::wait, latch, barrier, counting_semaphore
    {"std::__atomic_wait", Primitive::Latch},
    {"std::__detail::__platform_wait", Primitive::Latch},
    // Rust's standard library (sys/sync since 1.80, sys_common and sys/unix before)
    {"std::sys::sync::mutex", Primitive::Mutex},
    {"std::sys::sync::rwlock", Primitive::Rwlock},
    {"std::sys::sync::condvar", Primitive::Cond},
    {"std::sys::sync::once", Primitive::Once},
    {"std::sys::sync::thread_parking", Primitive::Park},
    {"std::sys::unix::locks::futex_mutex", Primitive::Mutex},
    {"std::sys::unix::locks::futex_rwlock", Primitive::Rwlock},
    {"std::sys::unix::locks::futex_condvar", Primitive::Cond},
    {"std::sys_common::once", Primitive::Once},
    {"std::sys_common::thread_parking", Primitive::Park},
    {"std::thread::park", Primitive::Park},
    // HotSpot: monitors and parking sit on pthread_cond, which is found first;
    // the runtime's own mutexes on pthread_mutex.
    {"Unsafe_Park", Primitive::Park},
    // Go's runtime
    {"runtime.lock", Primitive::RuntimeLock},
    {"runtime.notesleep", Primitive::Park},
    {"runtime.notetsleep", Primitive::Park},
    {"runtime.semasleep", Primitive::Park},
    // Locks of glibc's own
    {"malloc", Primitive::RuntimeLock},
    {"free", Primitive::RuntimeLock},
    {"calloc", Primitive::RuntimeLock},
    {"realloc", Primitive::RuntimeLock},
    {"libc_malloc", Primitive::RuntimeLock},
    {"libc_free", Primitive::RuntimeLock},
    {"arena_get", Primitive::RuntimeLock},
    {"IO_", Primitive::RuntimeLock},
};

// Frames of the machinery itself, that tell nothing by themselves.
constexpr std::string_view kInternals[] = {
    "lll_lock",       "lll_mutex", "futex_",           "futex_abstimed", "syscall",
    "internal_syscall", "std::mutex::", "std::lock_guard", "std::unique_lock",
    "std::shared_mutex", "std::scoped_lock", "std::condition_variable", "gthread_",
    "gthrw_", "std::shared_lock", "std::__shared_mutex", "pthread_mutex", "pthread_rwlock", "pthread_cond",
    "sem_", "new_sem_", "std::__detail", "std::sys::", "std::sys_common::", "runtime.futex",
    "std::timed_mutex", "std::recursive_mutex", "glibcxx_rwlock", "std::__condvar",
};

constexpr std::string_view kSystemLibraries[] = {"libc.", "libc-", "libpthread", "libstdc++",
                                                 "ld-musl", "[vdso]"};

std::string_view without_underscores(std::string_view name) {
  name.remove_prefix(std::min(name.find_first_not_of('_'), name.size()));
  return name;
}

std::optional<Primitive> by_name(const std::vector<Frame>& frames) {
  for (const Frame& frame : frames) {
    const std::string_view name = without_underscores(frame.function);
    for (const NameRule& rule : kNames) {
      // A program may well have a free_list_insert() of its own.
      const bool libc_only = rule.primitive == Primitive::RuntimeLock &&
                             !rule.prefix.starts_with("runtime.");
      if (name.starts_with(rule.prefix) && (!libc_only || is_system_library(frame))) {
        return rule.primitive;
      }
    }
    // Past the libraries' own frames there is only the program.
    if (!is_lock_internals(frame) && !is_system_library(frame)) return {};
  }
  return {};
}

}  // namespace

Primitive primitive_of_object(uint32_t kind) {
  switch (kind) {
    case LS_OBJECT_MUTEX: return Primitive::Mutex;
    case LS_OBJECT_RWLOCK: return Primitive::Rwlock;
    case LS_OBJECT_COND: return Primitive::Cond;
    case LS_OBJECT_SEM: return Primitive::Sem;
    case LS_OBJECT_BARRIER: return Primitive::Barrier;
    case LS_OBJECT_JOIN: return Primitive::Join;
    case LS_OBJECT_ONCE: return Primitive::Once;
    case LS_OBJECT_SPIN: return Primitive::Spin;
  }
  return Primitive::Unknown;
}

const char* to_string(Primitive primitive) {
  constexpr std::array<const char*, 12> kNamesOut = {"futex", "mutex", "rwlock", "cond",
                                                     "sem",   "barrier", "join", "once",
                                                     "park",  "runtime-lock", "latch", "spin"};
  return kNamesOut[static_cast<size_t>(primitive)];
}

Primitive classify_wait(const std::vector<Frame>& frames, uint32_t traits) {
  if (const auto named = by_name(frames)) {
    // The mutex of a condition variable is taken again by a local function
    // that stripped libraries don't name; its plain wait for 2 gives it away.
    // (musl's condition variables wait so as well, but on words that waiters
    // don't release.)
    constexpr uint32_t kContended = LS_TRAIT_PLAIN_WAIT | LS_TRAIT_VAL_2 | LS_TRAIT_SELF_RELEASE;
    const bool contended_word = (traits & kContended) == kContended;
    if (*named == Primitive::Cond && contended_word) return Primitive::Mutex;
    return *named;
  }
  if (traits & LS_TRAIT_PI) return Primitive::Mutex;
  if (traits & LS_TRAIT_THREAD_EXIT) return Primitive::Join;
  // Waited on while 2, or while owned, and never while anything else: a word
  // that takes other values as well is a counter.
  const bool lock_word = (traits & (LS_TRAIT_VAL_2 | LS_TRAIT_VAL_OWNED)) != 0 &&
                         (traits & (LS_TRAIT_VAL_0 | LS_TRAIT_VAL_3 | LS_TRAIT_VAL_OTHER)) == 0;
  if (lock_word || (traits & LS_TRAIT_REQUEUE_TARGET)) return Primitive::Mutex;
  return Primitive::Unknown;
}

bool is_lock_wait(Primitive primitive, double self_share) {
  // A consumer that posts now and then does not make a queue a lock.
  constexpr double kMostly = 0.5;
  switch (primitive) {
    case Primitive::Mutex:
    case Primitive::Rwlock:
    case Primitive::Once:
    case Primitive::RuntimeLock:
    case Primitive::Spin:
      return true;
    case Primitive::Sem:
    case Primitive::Unknown:
      return self_share >= kMostly;
    case Primitive::Cond:
    case Primitive::Barrier:
    case Primitive::Join:
    case Primitive::Park:
    case Primitive::Latch:
      return false;
  }
  return false;
}

uint64_t word_offset(Primitive primitive, uint64_t address, uint32_t traits) {
  // pthread_cond_t: __g_signals[2] at 40 and 44. pthread_rwlock_t:
  // __wrphase_futex at 8 and __writers_futex at 12, waited on while 2 or 3, and
  // __readers at 0, waited on while it counts readers (non-recursive writer
  // preference). Both are 8-aligned.
  if (primitive == Primitive::Cond) return address % 8 == 0 ? 40 : 44;
  if (primitive != Primitive::Rwlock) return 0;
  if (address % 8 != 0) return 12;
  return (traits & (LS_TRAIT_VAL_2 | LS_TRAIT_VAL_3)) != 0 ? 8 : 0;
}

bool is_system_library(const Frame& frame) {
  return std::any_of(std::begin(kSystemLibraries), std::end(kSystemLibraries),
                     [&](std::string_view prefix) { return frame.module.starts_with(prefix); });
}

bool is_lock_internals(const Frame& frame) {
  const std::string_view name = without_underscores(frame.function);
  // Wrappers that do nothing but lock, as most large programs have them.
  for (const std::string_view wrapper : {"::Lock", "::lock", "::lock_shared", "::ReadLock",
                                         "::WriteLock", "::MutexLock", "::unlock", "::Unlock"}) {
    if (name.ends_with(wrapper)) return true;
  }
  return std::any_of(std::begin(kInternals), std::end(kInternals),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

}  // namespace lockscope
