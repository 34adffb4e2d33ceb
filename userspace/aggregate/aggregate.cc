#include "aggregate/aggregate.h"

#include <algorithm>
#include <bit>
#include <unordered_map>

namespace lockscope {
namespace {

struct KeyHash {
  size_t operator()(const std::pair<uint64_t, uint64_t>& key) const {
    return key.first ^ (key.second * 0x9e3779b97f4a7c15ull);
  }
};

constexpr uint64_t kAreaMask = (1ull << LS_AREA_BITS) - 1;

// The area of a book at an instant, in ticks modulo 2^48: as book_area() in
// books.bpf.h.
uint64_t book_area(uint64_t book, uint64_t at_ns) {
  const uint64_t waiters = book & LS_BOOK_COUNT_MASK;
  return ((book >> LS_BOOK_COUNT_BITS) + waiters * (at_ns >> LS_TICK_SHIFT)) & kAreaMask;
}

int64_t signed_ticks(uint64_t ticks) {
  constexpr int kUnused = 64 - LS_AREA_BITS;
  return static_cast<int64_t>(ticks << kUnused) >> kUnused;
}

uint32_t count_bits(const __u64 (&words)[LS_THREAD_BITS / 64]) {
  int bits = 0;
  for (const __u64 word : words) bits += std::popcount(static_cast<uint64_t>(word));
  return static_cast<uint32_t>(bits);
}

Histogram to_histogram(const __u32 (&slots)[LS_HIST_SLOTS]) {
  Histogram histogram;
  std::copy(std::begin(slots), std::end(slots), histogram.slots.begin());
  return histogram;
}

size_t hist_slot(uint64_t ns) {
  const size_t slot = ns == 0 ? 0 : static_cast<size_t>(std::bit_width(ns) - 1);
  return std::min<size_t>(slot, LS_HIST_SLOTS - 1);
}

uint32_t depth_of(const ls_frames& frames) {
  return std::min<uint32_t>(frames.n, LS_UNWIND_MAX_FRAMES);
}

class Aggregator {
 public:
  explicit Aggregator(const RawTables& tables) : tables_(tables) {}

  Capture run() {
    capture_.duration_ns = tables_.stop_ns - tables_.start_ns;
    for (const auto& [id, process] : tables_.processes) {
      process_index_[id] = static_cast<Index>(capture_.processes.size());
      capture_.processes.push_back(process);
    }
    for (const auto& [key, frames] : tables_.stacks) {
      stack_index_[key.hash] = add_stack(key.process, frames);
    }
    for (const auto& [id, lock] : tables_.locks) add_lock(id, lock);
    for (const auto& [key, row] : tables_.waits) add_wait(key, row);
    for (const auto& [tid, thread] : tables_.threads) add_in_flight(tid, thread);
    for (const auto& [key, row] : tables_.releases) add_release(key, row);
    for (const auto& [key, row] : tables_.pairs) {
      capture_.pairs.push_back({lock_of(key.lock), stack_of(key.waiter), stack_of(key.waker),
                                row.count, row.total_ns});
    }
    for (size_t i = 0; i < tables_.locks.size(); i++) restore_lost_rows(static_cast<Index>(i));
    fill_quality();
    return std::move(capture_);
  }

 private:
  // A process that was gone before anything could be read of it is known by
  // its PID alone.
  Index process_of(uint64_t id) {
    const auto [entry, is_new] =
        process_index_.emplace(id, static_cast<Index>(capture_.processes.size()));
    if (is_new) {
      Process process;
      process.id = id;
      process.pid = static_cast<int32_t>(LS_PROCESS_TGID(id));
      capture_.processes.push_back(std::move(process));
    }
    return entry->second;
  }

  Index lock_of(uint64_t id) const {
    const auto found = lock_index_.find(id);
    return found == lock_index_.end() ? kNone : found->second;
  }

  Index stack_of(uint64_t id) const {
    const auto found = stack_index_.find(id);
    return found == stack_index_.end() ? kNone : found->second;
  }

  Index add_stack(uint64_t process, const ls_frames& frames) {
    Stack stack;
    stack.process = process_of(process);
    stack.flags = frames.flags;
    stack.addresses.assign(frames.ips, frames.ips + depth_of(frames));
    capture_.stacks.push_back(std::move(stack));
    return static_cast<Index>(capture_.stacks.size() - 1);
  }

  void add_lock(uint64_t id, const ls_lock& raw) {
    Lock lock;
    lock.id = id;
    lock.process = process_of(raw.process);
    lock.address = raw.address;
    lock.shared = raw.key.type == LS_LOCK_SHARED;
    if (lock.shared) {
      lock.inode = raw.key.space;
      lock.file_offset = raw.key.offset;
      lock.device = raw.key.device;
    }
    lock.traits = raw.traits;
    lock.max_waiters = raw.max_waiters;
    lock.waiter_threads = count_bits(raw.waiter_threads);
    lock.releaser_threads = count_bits(raw.releaser_threads);
    lock.refused_holds = raw.refused_holds;
    lock.waited_releases = raw.waited_releases;
    lock.self_releases = raw.self_releases;
    const uint64_t area = book_area(raw.book, tables_.stop_ns);
    lock.area_ns = area << LS_TICK_SHIFT;
    lock.unreleased_ns = signed_ticks(area - raw.charged) * LS_TICK_NS;
    if (const auto owner = tables_.owners.find(id); owner != tables_.owners.end()) {
      lock.owner_tid = owner->second;
    }
    lock_index_[id] = static_cast<Index>(capture_.locks.size());
    capture_.locks.push_back(std::move(lock));
  }

  WaitRow& wait_row(Index lock, Index stack) {
    const auto [entry, is_new] =
        wait_index_.emplace(std::pair<uint64_t, uint64_t>(lock, stack), capture_.waits.size());
    if (is_new) {
      capture_.waits.push_back({});
      capture_.waits.back().lock = lock;
      capture_.waits.back().stack = stack;
    }
    return capture_.waits[entry->second];
  }

  void add_wait(const ls_wait_key& key, const ls_wait_row& raw) {
    if (raw.count == 0 || key.lock == 0) return;  // the overflow row: restore_lost_rows()
    WaitRow& row = wait_row(lock_of(key.lock), stack_of(key.stack));
    row.ended.add({raw.count, raw.total_ns, raw.max_ns, to_histogram(raw.hist)});
    row.sleeps += raw.sleeps;
    row.timeouts += raw.timeouts;
  }

  void add_in_flight(uint32_t tid, const ls_thread& thread) {
    if (thread.phase != LS_PHASE_WAITING || thread.lock == 0) return;
    Index stack = stack_of(thread.stack);
    if (stack == kNone) {
      const auto asleep = tables_.asleep_stacks.find(tid);
      if (asleep != tables_.asleep_stacks.end()) stack = asleep_stack(thread.process, asleep->second);
    }
    WaitRow& row = wait_row(lock_of(thread.lock), stack);
    const uint64_t began = std::min<uint64_t>(thread.since_ns, tables_.stop_ns);
    uint64_t ns = tables_.stop_ns - began;
    if (thread.episode_ns != 0 && row.ended.count > 0) {
      // It had woken in between without getting the lock: that part stands
      // among the ended waits, but is not over.
      const uint64_t before_ns = std::min<uint64_t>(thread.episode_ns, row.ended.total_ns);
      uint64_t& slot = row.ended.histogram.slots[hist_slot(thread.episode_ns)];
      row.ended.count--;
      row.ended.total_ns -= before_ns;
      if (slot > 0) slot--;
      ns += before_ns;
    }
    row.in_flight++;
    row.in_flight_ns += ns;
    row.in_flight_max_ns = std::max(row.in_flight_max_ns, ns);
    row.before_capture += thread.before_attach;
  }

  // Threads of a pool sleep on the same stack: keep it once.
  Index asleep_stack(uint64_t process_id, const ls_frames& frames) {
    const Index process = process_of(process_id);
    for (const Index index : asleep_) {
      const Stack& stack = capture_.stacks[index];
      if (stack.process == process &&
          std::equal(stack.addresses.begin(), stack.addresses.end(), frames.ips,
                     frames.ips + depth_of(frames)))
        return index;
    }
    asleep_.push_back(add_stack(process_id, frames));
    return asleep_.back();
  }

  void add_release(const ls_wait_key& key, const ls_release_row& raw) {
    if ((raw.count == 0 && raw.blame_ns == 0) || key.lock == 0) return;
    ReleaseRow row;
    row.lock = lock_of(key.lock);
    row.stack = stack_of(key.stack);
    row.count = raw.count;
    row.blame_ns = raw.blame_ns;
    row.hold = {raw.hold_count, raw.hold_total_ns, raw.hold_max_ns, to_histogram(raw.hold_hist)};
    capture_.releases.push_back(row);
  }

  // Where a table of rows was full, its time is still in the lock's own books:
  // it comes back here, without a stack.
  void restore_lost_rows(Index lock) {
    const auto& counters = tables_.counters;
    const auto& raw = tables_.locks[lock].second;
    if (counters[LS_LOST_WAIT_ROWS_FULL] != 0) {
      uint64_t in_rows = 0;
      for (const WaitRow& row : capture_.waits) in_rows += row.lock == lock ? row.total_ns() : 0;
      const uint64_t area_ns = capture_.locks[lock].area_ns;
      if (area_ns > in_rows) wait_row(lock, kNone).ended.total_ns += area_ns - in_rows;
    }
    if (counters[LS_LOST_RELEASE_ROWS_FULL] != 0) {
      uint64_t in_rows = 0;
      for (const ReleaseRow& row : capture_.releases) in_rows += row.lock == lock ? row.blame_ns : 0;
      const uint64_t charged_ns = static_cast<uint64_t>(raw.charged) << LS_TICK_SHIFT;
      if (charged_ns > in_rows) {
        ReleaseRow row;
        row.lock = lock;
        row.blame_ns = charged_ns - in_rows;
        capture_.releases.push_back(row);
      }
    }
  }

  void fill_quality() {
    Quality& quality = capture_.quality;
    const auto& counters = tables_.counters;
    quality.calls = counters[LS_COUNT_CALLS];
    quality.stacks_taken = counters[LS_COUNT_STACKS];
    quality.unmatched = counters[LS_UNMATCHED_HOLDS];
    constexpr std::pair<ls_counter, const char*> kReasons[] = {
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
        {LS_LOST_HELD_FULL, "held_locks_full"},
        {LS_LOST_STACK_BUSY, "stack_busy"},
    };
    for (const auto& [counter, reason] : kReasons) {
      if (counters[counter] != 0) quality.lost[reason] = counters[counter];
    }
    for (const Stack& stack : capture_.stacks) {
      quality.complete_stacks += stack.whole();
      quality.truncated_stacks += (stack.flags & LS_UNWIND_TRUNCATED) != 0;
      quality.guessed_stacks += (stack.flags & LS_UNWIND_FP_GUESS) != 0;
      quality.broken_stacks += (stack.flags & (LS_UNWIND_BROKEN | LS_UNWIND_NO_TABLE)) != 0;
    }
  }

  const RawTables& tables_;
  Capture capture_;
  std::unordered_map<uint64_t, Index> process_index_, lock_index_, stack_index_;
  std::unordered_map<std::pair<uint64_t, uint64_t>, size_t, KeyHash> wait_index_;
  std::vector<Index> asleep_;
};

}  // namespace

Capture aggregate(const RawTables& tables) { return Aggregator(tables).run(); }

}  // namespace lockscope
