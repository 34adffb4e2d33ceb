#include "aggregate/holder_tables.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "sampling.h"

namespace lockscope {
namespace {

// What one CPU sample stands for.
constexpr double kSampleNs = 1e9 / LS_HOLDER_SAMPLES;

// A lock by either tier's name; of the two indices one is kNone.
struct Place {
  Index lock = kNone;
  Index object = kNone;

  bool known() const { return lock != kNone || object != kNone; }
  auto operator<=>(const Place&) const = default;
};

// The clocks of a thread, at the end of the capture.
struct Clocks {
  uint64_t runnable_ns = 0, blocked_ns = 0;
  uint64_t now_blocked_ns = 0;
};

Clocks clocks_at(const ls_holder& holder, uint64_t stop_ns) {
  Clocks clocks{holder.runnable_ns, holder.blocked_ns};
  const uint64_t off_ns = stop_ns - std::min(stop_ns, static_cast<uint64_t>(holder.off_since_ns));
  if (holder.state == LS_HOLDER_RUNNABLE) clocks.runnable_ns += off_ns;
  if (holder.state == LS_HOLDER_BLOCKED) {
    clocks.blocked_ns += off_ns;
    clocks.now_blocked_ns = off_ns;
  }
  return clocks;
}

}  // namespace

void add_holder_tables(const RawTables& tables, const KeyIndices& indices, Capture& capture) {
  std::map<std::pair<Index, uint64_t>, Index> objects;
  for (size_t i = 0; i < capture.objects.size(); i++) {
    objects[{capture.objects[i].process, capture.objects[i].address}] = static_cast<Index>(i);
  }
  const auto place_of = [&](uint64_t process, uint64_t lock, uint32_t kind) -> Place {
    if (kind == LS_MARK_LOCK) return {.lock = indices.lock(lock)};
    const auto found = objects.find({indices.process(process), lock});
    return {.object = found == objects.end() ? kNone : found->second};
  };

  std::map<Place, HoldSplit> splits;
  for (const auto& [key, raw] : tables.splits) {
    splits[place_of(key.process, key.lock, key.kind)].add(
        {raw.count, raw.held_ns, raw.runnable_ns, raw.blocked_ns});
  }
  using ActivityKey = std::tuple<Place, Index, int32_t>;
  struct Activity {
    uint64_t count = 0;
    double ns = 0;
  };
  std::map<ActivityKey, Activity> activities;
  for (const auto& [key, raw] : tables.activities) {
    Activity& activity = activities[{place_of(key.process, key.lock, key.kind),
                                     indices.stack(key.stack), key.call}];
    activity.count += raw.count;
    activity.ns += static_cast<double>(raw.weight_ns) *
                   (key.call == LS_CALL_RUNNING ? kSampleNs : 1.0);
  }

  for (const auto& [tid, holder] : tables.holders) {
    const Clocks clocks = clocks_at(holder, tables.stop_ns);
    const uint32_t n = std::min<uint32_t>(holder.n, LS_MAX_MARKS);
    for (uint32_t i = 0; i < n; i++) {
      const ls_mark& mark = holder.marks[i];
      if (mark.maybe != 0 || mark.since_ns >= tables.stop_ns) continue;
      splits[place_of(holder.process, mark.lock, mark.kind)].add(
          {0, tables.stop_ns - mark.since_ns, clocks.runnable_ns - mark.runnable_ns,
           clocks.blocked_ns - mark.blocked_ns});
    }
    if (n == 0 || clocks.now_blocked_ns == 0 || holder.inverse == 0 || holder.charged_kind == 0)
      continue;
    Activity& activity = activities[{place_of(holder.process, holder.charged, holder.charged_kind),
                                     indices.stack(holder.stack), holder.call}];
    activity.count++;
    activity.ns += static_cast<double>(ls_weigh(clocks.now_blocked_ns, holder.inverse));
  }

  for (const auto& [place, split] : splits) {
    if (place.known()) capture.splits.push_back({place.lock, place.object, split});
  }
  for (const auto& [key, activity] : activities) {
    const auto& [place, stack, call] = key;
    if (!place.known()) continue;
    capture.activities.push_back({place.lock, place.object, stack, call, activity.count,
                                  static_cast<uint64_t>(activity.ns)});
  }
}

}  // namespace lockscope
