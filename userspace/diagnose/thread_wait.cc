#include "diagnose/thread_wait.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <optional>
#include <string_view>

#include "events.h"

namespace lockscope {
namespace {

constexpr uint32_t kTidMask = 0x3fffffff;  // FUTEX_TID_MASK

// glibc's pthread_mutex_t, nptl/bits/struct_mutex.h, x86-64: bytes from its lock
// word to the owner's tid, the number of users, the kind.
constexpr int kMutexOwner = 8, kMutexUsers = 12, kMutexKind = 16;
constexpr uint32_t kMutexKinds = 0x3ff;  // all bits that there are
// ... pthread_rwlock_t: from its start to the tid of who writes.
constexpr int kRwlockWriter = 24;

const std::vector<Frame> kNoFrames;

bool has_prefix(const Frame& frame, std::initializer_list<std::string_view> prefixes) {
  std::string_view name = frame.function;
  name.remove_prefix(std::min(name.find_first_not_of('_'), name.size()));
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

bool is_glibc(const Frame& frame) {
  return frame.module.starts_with("libc.so") || frame.module.starts_with("libc-2") ||
         frame.module.starts_with("libpthread");
}

// Whether the functions around the wait are those of pthreads: of a mutex that
// names its owner.
bool is_pthread_wait(const std::vector<Frame>& frames) {
  for (const Frame& frame : frames) {
    if (has_prefix(frame, {"pthread_mutex_", "pthread_rwlock_", "pthread_cond_", "mtx_", "cnd_"})) {
      return true;
    }
    if (!is_lock_internals(frame) && !is_system_library(frame)) return false;
  }
  return false;
}

Primitive classify(const FutexWait& wait, const std::vector<Frame>& frames) {
  const uint32_t traits = wait_traits(wait);
  const Primitive primitive = classify_wait(frames, traits);
  // The mutex of a condition variable, taken again after its wait, in glibc. Its
  // own waits are FUTEX_WAIT_BITSET.
  if (primitive == Primitive::Cond && (traits & LS_TRAIT_PLAIN_WAIT) && wait.value == 2 &&
      std::any_of(frames.begin(), frames.end(), is_glibc)) {
    return Primitive::Mutex;
  }
  return primitive;
}

// As in sites.cc.
std::string name_of(const Lock& lock, uint64_t word) {
  if (lock.object.empty()) return {};
  const uint64_t offset = lock.object_offset - std::min(word, lock.object_offset);
  return offset == 0 ? lock.object : fmt::format("{}+{:#x}", lock.object, offset);
}

class WaitFinder {
 public:
  explicit WaitFinder(const SymbolizedCensus& census)
      : census_(census), threads_(census.threads) {
    for (Index i = 0; i < threads_.size(); i++) {
      const CensusThread& thread = threads_[i];
      if (thread.state == ThreadState::Ended) continue;
      by_inner_tid_[{thread.process, thread.inner_tid}] = i;
      if (thread.ending == 0) continue;
      // In musl all threads have the same, a lock of its own.
      const auto [known, is_new] = by_ending_.try_emplace({thread.process, thread.ending}, i);
      if (!is_new) known->second = kNone;
    }
  }

  ThreadWait wait_of(const CensusThread& thread) const {
    ThreadWait out;
    if (!thread.wait || thread.lock == kNone) return out;
    const FutexWait& wait = *thread.wait;
    const Lock& lock = census_.named.capture.locks[thread.lock];
    out.known = true;
    out.timed = wait.timed;
    out.shared = lock.shared;
    out.address = wait.word;
    // glibc's pthread_join: the kernel itself clears the word and wakes.
    const auto joined = by_ending_.find({thread.process, wait.word});
    if (joined != by_ending_.end() && joined->second != kNone && wait.elements == 0) {
      out.primitive = Primitive::Join;
      if (thread.still) out.holder = joined->second;
      return out;
    }
    const auto& frames =
        thread.stack == kNone ? kNoFrames : census_.named.frames[thread.stack];
    out.primitive = classify(wait, frames);
    // No history here that would tell semaphores used as locks.
    out.is_lock = is_lock_wait(out.primitive, 0);
    const uint64_t offset = word_offset(out.primitive, wait.word, lock.traits);
    out.address = wait.word - offset;
    out.name = name_of(lock, offset);
    if (out.is_lock && thread.still && wait.elements == 0) {
      find_holder(thread, frames, offset, out);
    }
    return out;
  }

 private:
  void find_holder(const CensusThread& thread, const std::vector<Frame>& frames, uint64_t offset,
                   ThreadWait& out) const {
    const WordsAround& words = thread.around;
    const uint32_t word = words.at(0).value_or(0);
    const bool is_mutex = out.primitive == Primitive::Mutex;
    const bool pthread = is_pthread_wait(frames);
    // Stripped static programs name nothing; other languages' mutexes do.
    const bool nameless = classify_wait(frames, 0) == Primitive::Unknown;
    const bool in_word =
        is_owned_word(thread.wait->value) || (wait_traits(*thread.wait) & LS_TRAIT_PI) != 0;
    std::optional<uint32_t> owner;
    if (in_word && is_mutex) {
      // Priority inheritance, robust mutexes, musl.
      owner = word & kTidMask;
    } else if (is_mutex && word == 2 && (pthread || (nameless && looks_like_mutex(words)))) {
      owner = words.at(kMutexOwner);
    } else if (out.primitive == Primitive::Rwlock && pthread) {
      owner = words.at(kRwlockWriter - static_cast<int>(offset));
    }
    if (!owner || *owner == 0) return;
    out.holder = thread_called(thread, out.shared, static_cast<int32_t>(*owner));
    // Shared ones may be held in processes that were not looked at.
    if (out.holder == kNone && !out.shared && is_mutex && pthread && looks_like_mutex(words)) {
      out.lost_holder = static_cast<int32_t>(*owner);
    }
  }

  bool looks_like_mutex(const WordsAround& words) const {
    const auto users = words.at(kMutexUsers), kind = words.at(kMutexKind);
    return users && kind && *users >= 1 && *users <= threads_.size() + 1 && *kind <= kMutexKinds;
  }

  Index thread_called(const CensusThread& waiter, bool shared, int32_t inner_tid) const {
    const auto own = by_inner_tid_.find({waiter.process, inner_tid});
    if (own != by_inner_tid_.end()) return own->second;
    Index found = kNone;
    for (Index i = 0; shared && i < threads_.size(); i++) {
      if (threads_[i].inner_tid != inner_tid || threads_[i].state == ThreadState::Ended) continue;
      if (found != kNone) return kNone;  // in different namespaces
      found = i;
    }
    return found;
  }

  const SymbolizedCensus& census_;
  const std::vector<CensusThread>& threads_;
  std::map<std::pair<Index, int32_t>, Index> by_inner_tid_;
  std::map<std::pair<Index, uint64_t>, Index> by_ending_;
};

}  // namespace

std::vector<ThreadWait> find_waits(const SymbolizedCensus& census) {
  const WaitFinder finder(census);
  std::vector<ThreadWait> waits;
  for (const CensusThread& thread : census.threads) waits.push_back(finder.wait_of(thread));
  return waits;
}

}  // namespace lockscope
