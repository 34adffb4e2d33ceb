#include "aggregate/pthread_objects.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "aggregate/apportion.h"
#include "record/held_objects.h"

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

// A hold as long as the slices has hardly a chance to lie within one; one of length h
// has (S - h) / S of that of a short one.
double inverse_chance(size_t slot, double slice_ns) {
  const double ns = std::exp2(static_cast<double>(slot) + 0.5);
  constexpr double kLeast = 0.05;
  return 1 / std::max(kLeast, 1 - ns / slice_ns);
}

// Makes `holds`, of which slices saw some whole, those of all the time.
void scale_up(Durations& holds, double count, double ns, double slice_ns) {
  std::vector<double> weights;
  for (size_t slot = 0; slot < holds.histogram.slots.size(); slot++) {
    weights.push_back(static_cast<double>(holds.histogram.slots[slot]) *
                      inverse_chance(slot, slice_ns));
  }
  holds.count = static_cast<uint64_t>(std::llround(count));
  holds.total_ns = static_cast<uint64_t>(std::llround(ns));
  if (holds.histogram.count() == 0) {
    // Longer than the slices, all of them.
    const uint64_t mean = holds.count > 0 ? holds.total_ns / holds.count : holds.total_ns;
    weights[std::min<size_t>(mean == 0 ? 0 : std::bit_width(mean) - 1, weights.size() - 1)] = 1;
    holds.max_ns = std::max(holds.max_ns, mean);
  }
  const auto counts = apportion(holds.count, weights);
  std::copy(counts.begin(), counts.end(), holds.histogram.slots.begin());
}

// Of the time in which probes were there, what would have been seen in all of it.
void estimate(PthreadObject& object, const SliceBooks::Estimates& estimates,
              const RawTables& tables) {
  const double slice_ns = tables.observed_share *
                          static_cast<double>(tables.stop_ns - tables.start_ns) /
                          static_cast<double>(tables.slices);
  const auto whole = [](const Durations& holds) { return static_cast<double>(holds.total_ns); };
  const double both = whole(object.hold) + whole(object.read_hold);
  // What was cut belongs to either kind, as far as one can tell.
  const double reading = both > 0 ? whole(object.read_hold) / both : 0;
  const double ended = static_cast<double>(object.hold.count + object.read_hold.count);
  const double read_count =
      ended > 0 ? static_cast<double>(object.read_hold.count) / ended : reading;
  const double seen = ended + static_cast<double>(object.before);
  const double factor = seen > 0 ? estimates.count.value / seen : 1 / tables.observed_share;
  if (read_count > 0) {
    scale_up(object.read_hold, estimates.count.value * read_count, estimates.ns.value * reading,
             slice_ns);
  }
  if (read_count < 1) {
    scale_up(object.hold, estimates.count.value * (1 - read_count),
             estimates.ns.value * (1 - reading), slice_ns);
  }
  for (uint64_t* number : {&object.contended, &object.failed, &object.waits, &object.signals,
                           &object.broadcasts, &object.unheld, &object.posts, &object.taken,
                           &object.spins, &object.spin_ns}) {
    *number = static_cast<uint64_t>(static_cast<double>(*number) * factor);
  }
  object.before = 0;
  object.nobody = 0;  // who waited since before a slice is not known
  object.count_error =
      estimates.count.value > 0 ? estimates.count.error / estimates.count.value : 0;
  object.total_error = estimates.ns.value > 0 ? estimates.ns.error / estimates.ns.value : 0;
  object.mean_error = estimates.mean_error;
}

}  // namespace

void add_pthread_objects(const RawTables& tables, const KeyIndices& indices, Capture& capture) {
  std::map<Key, Index> known;
  for (const auto& [key, raw] : tables.objects) {
    known[{key.process, key.address}] = static_cast<Index>(capture.objects.size());
    capture.objects.push_back(to_object(key, raw));
    capture.objects.back().process = indices.process(key.process);
    if (tables.slices == 0) continue;
    const auto found = tables.estimates.find({key.process, key.address});
    estimate(capture.objects.back(), found == tables.estimates.end() ? SliceBooks::Estimates{} : found->second,
             tables);
  }
  const auto find = [&](uint64_t process, uint64_t address) {
    const auto found = known.find({process, address});
    return found == known.end() ? kNone : found->second;
  };

  if (tables.slices == 0) {
    std::map<uint32_t, const ls_thread*> futex_threads;
    for (const auto& [tid, thread] : tables.threads) futex_threads[tid] = &thread;
    const auto futex_thread = [&](uint32_t tid) {
      const auto thread = futex_threads.find(tid);
      return thread == futex_threads.end() ? nullptr : thread->second;
    };
    for (const HeldObject& held : held_objects(tables.pthreads, tables.slice, tables.stop_ns, futex_thread)) {
      const Index object = find(held.process, held.address);
      if (object == kNone) continue;
      capture.objects[object].held++;
      capture.objects[object].held_ns += tables.stop_ns - held.since_ns;
    }
  } else {
    // What is held is in the estimates, up to each slice's end.
    capture.quality.pthread_slices = tables.slices;
    capture.quality.pthread_share = tables.observed_share;
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
