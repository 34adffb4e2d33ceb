#include "aggregate/pthread_objects.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "aggregate/apportion.h"

namespace lockscope {
namespace {

using Key = std::pair<uint64_t, uint64_t>;  // process, address

Durations holds(const ls_release_sums& sums) {
  Durations durations;
  durations.count = sums.count;
  durations.total_ns = sums.hold_total_ns;
  durations.max_ns = sums.hold_max_ns;
  std::copy(std::begin(sums.hold_hist), std::end(sums.hold_hist),
            durations.histogram.slots.begin());
  // A hold shorter than the clock's tick has a count and no time.
  durations.histogram.slots[0] += durations.count - std::min(durations.histogram.count(), durations.count);
  return durations;
}

PthreadObject to_object(const ls_object_key& key, const ls_object& raw) {
  PthreadObject object;
  object.address = key.address;
  object.kind = raw.kind;
  object.hold = holds(raw.holds);
  object.read_hold = holds(raw.read_holds);
  object.before = raw.before_count;
  object.contended = raw.events[LS_EVENT_CONTENDED];
  object.failed = raw.events[LS_EVENT_FAILED];
  object.waits = raw.events[LS_EVENT_WAITS];
  object.signals = raw.events[LS_EVENT_SIGNALS];
  object.broadcasts = raw.events[LS_EVENT_BROADCASTS];
  object.unheld = raw.events[LS_EVENT_UNHELD];
  object.nobody = raw.events[LS_EVENT_NOBODY];
  object.posts = raw.events[LS_EVENT_POSTS];
  object.taken = raw.events[LS_EVENT_NEVER_POSTED];
  object.spins = raw.events[LS_EVENT_SPINS];
  object.spin_ns = raw.spin_ns;
  object.mutex = raw.partner;
  return object;
}

// Whether the thread sleeps for what it asked for last, and does not have it yet.
bool still_waits(const ls_pthread& thread, const ls_thread* asleep) {
  if (!asleep || asleep->phase != LS_PHASE_WAITING) return false;
  const auto near = [&](uint64_t object) {
    return object != 0 && asleep->word - object < LS_OBJECT_BYTES;
  };
  return near(thread.pending) || near(thread.pending_cond);
}

}  // namespace

void add_pthread_objects(const RawTables& tables, const KeyIndices& indices, Capture& capture) {
  std::map<Key, Index> known;
  for (const auto& [key, raw] : tables.objects) {
    known[{key.process, key.address}] = static_cast<Index>(capture.objects.size());
    capture.objects.push_back(to_object(key, raw));
    capture.objects.back().process = indices.process(key.process);
  }
  const auto find = [&](uint64_t process, uint64_t address) {
    const auto found = known.find({process, address});
    return found == known.end() ? kNone : found->second;
  };

  std::map<uint32_t, const ls_thread*> futex_threads;
  for (const auto& [tid, thread] : tables.threads) futex_threads[tid] = &thread;
  for (const auto& [tid, thread] : tables.pthreads) {
    const auto asleep = futex_threads.find(tid);
    const bool waits =
        still_waits(thread, asleep == futex_threads.end() ? nullptr : asleep->second);
    for (uint32_t i = 0; i < std::min<uint32_t>(thread.n, LS_MAX_ACQUIRED); i++) {
      const ls_acquired& held = thread.held[i];
      if (held.flags & LS_ACQUIRED_MAYBE || (waits && held.address == thread.pending)) continue;
      const Index object = find(thread.process, held.address);
      if (object == kNone || held.since_ns > tables.stop_ns) continue;
      capture.objects[object].held++;
      capture.objects[object].held_ns += tables.stop_ns - held.since_ns;
    }
  }

  struct Weights {
    std::vector<Index> stacks;
    std::vector<double> counts, times;
  };
  std::map<Index, Weights> rows;
  for (const auto& [key, raw] : tables.hold_rows) {
    const Index object = find(key.process, key.address);
    if (object == kNone) continue;
    Weights& weights = rows[object];
    weights.stacks.push_back(indices.stack(key.stack));
    weights.counts.push_back(static_cast<double>(raw.weight_count));
    weights.times.push_back(static_cast<double>(raw.weight_ns));
  }
  for (const auto& [index, weights] : rows) {
    const PthreadObject& object = capture.objects[index];
    const auto counts = apportion(object.hold.count + object.read_hold.count, weights.counts);
    const uint64_t total_ns = object.hold.total_ns + object.read_hold.total_ns;
    const bool timed = std::any_of(weights.times.begin(), weights.times.end(),
                                   [](double weight) { return weight > 0; });
    const auto times = apportion(total_ns, timed ? weights.times : weights.counts);
    for (size_t i = 0; i < weights.stacks.size(); i++) {
      capture.holds.push_back({index, weights.stacks[i], counts[i], times[i]});
    }
  }

  for (const auto& [key, raw] : tables.orders) {
    const Index held = find(key.process, key.held), wanted = find(key.process, key.wanted);
    if (held == kNone || wanted == kNone) continue;
    capture.orders.push_back(
        {held, wanted, indices.stack(raw.stack), raw.count, static_cast<int32_t>(raw.tid)});
  }

  constexpr std::pair<ls_pthread_counter, const char*> kReasons[] = {
      {LS_PTHREAD_LOST_THREADS, "pthread_threads_full"},
      {LS_PTHREAD_LOST_OBJECTS, "pthread_objects_full"},
      {LS_PTHREAD_LOST_HOLD_ROWS, "pthread_hold_rows_full"},
      {LS_PTHREAD_LOST_ORDERS, "pthread_orders_full"},
      {LS_PTHREAD_LOST_HELD, "pthread_held_full"},
      {LS_PTHREAD_UNMATCHED, "pthread_unmatched"},
  };
  for (const auto& [counter, reason] : kReasons) {
    const uint64_t n = tables.pthread_counters[counter];
    if (n != 0) capture.quality.lost[reason] = n;
  }
}

}  // namespace lockscope
