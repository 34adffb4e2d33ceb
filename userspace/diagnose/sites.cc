#include "diagnose/sites.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <unordered_map>

#include "pthread_tier.h"

namespace lockscope {
namespace {

const std::vector<Frame> kNoFrames;

const std::vector<Frame>& frames_of(const SymbolizedCapture& capture, Index stack) {
  return stack == kNone ? kNoFrames : capture.frames[stack];
}

// The primitive that explains most of the waiting on each lock.
std::vector<Primitive> classify_locks(const SymbolizedCapture& symbolized) {
  const Capture& capture = symbolized.capture;
  std::vector<std::map<Primitive, uint64_t>> votes(capture.locks.size());
  for (const WaitRow& row : capture.waits) {
    if (row.lock == kNone) continue;
    const Primitive primitive =
        classify_wait(frames_of(symbolized, row.stack), capture.locks[row.lock].traits);
    votes[row.lock][primitive] += row.total_ns() + 1;
  }
  std::vector<Primitive> primitives(capture.locks.size(), Primitive::Unknown);
  for (size_t i = 0; i < votes.size(); i++) {
    uint64_t most = 0;
    for (const auto& [primitive, ns] : votes[i]) {
      // A stack that names nothing does not outvote one that does.
      if (primitive != Primitive::Unknown && ns > most) {
        primitives[i] = primitive;
        most = ns;
      }
    }
    if (votes[i].empty()) primitives[i] = classify_wait({}, capture.locks[i].traits);
  }
  return primitives;
}

// Which object of the pthread tier a futex word is in, for those that are in one.
class ObjectFinder {
 public:
  explicit ObjectFinder(const Capture& capture) : objects_(capture.objects) {
    for (size_t i = 0; i < objects_.size(); i++) {
      by_address_[{objects_[i].process, objects_[i].address}] = static_cast<Index>(i);
    }
  }

  Index find(const Lock& lock) const {
    auto next = by_address_.upper_bound({lock.process, lock.address});
    if (next == by_address_.begin()) return kNone;
    const auto& [key, index] = *std::prev(next);
    // A join waits for a word deep in the thread's own descriptor.
    const uint64_t size =
        objects_[index].kind == LS_OBJECT_JOIN ? kThreadDescriptorBytes : LS_OBJECT_BYTES;
    return key.first == lock.process && lock.address - key.second < size ? index : kNone;
  }

 private:
  static constexpr uint64_t kThreadDescriptorBytes = 2304;  // glibc: sizeof (struct pthread)

  const std::vector<PthreadObject>& objects_;
  std::map<std::pair<Index, uint64_t>, Index> by_address_;
};

using SiteKey = std::tuple<bool, uint64_t, uint64_t, uint32_t, Primitive>;

SiteKey site_key(const Lock& lock, Primitive primitive) {
  // Each thread has its own word for its end: one place to a reader.
  if (primitive == Primitive::Join) return {false, lock.process, 0, 0, primitive};
  const uint64_t offset = word_offset(primitive, lock.address, lock.traits);
  if (lock.shared) return {true, lock.inode, lock.file_offset - offset, lock.device, primitive};
  return {false, lock.process, lock.address - offset, 0, primitive};
}

void add_share(std::vector<StackShare>& shares, Index stack, uint64_t ns, uint64_t count) {
  for (StackShare& share : shares) {
    if (share.stack == stack) {
      share.ns += ns;
      share.count += count;
      return;
    }
  }
  shares.push_back({stack, ns, count});
}

void sort_shares(std::vector<StackShare>& shares) {
  std::stable_sort(shares.begin(), shares.end(), [](const StackShare& a, const StackShare& b) {
    return std::tie(a.ns, a.count) > std::tie(b.ns, b.count);
  });
}

// "g_sessions", "g_server+0x40"
std::string variable_name(const std::string& name, uint64_t offset) {
  return offset == 0 ? name : fmt::format("{}+{:#x}", name, offset);
}

// Empty for what is no variable.
std::string name_object(const Lock& lock, Primitive primitive) {
  if (lock.object.empty()) return {};
  const uint64_t word = word_offset(primitive, lock.address, lock.traits);
  return variable_name(lock.object, lock.object_offset - std::min(word, lock.object_offset));
}

// "g_sessions", or "mutex in SessionStore::append" after whoever waits most.
std::string name_site(const Site& site, const SymbolizedCapture& capture,
                      const std::string& object) {
  if (!object.empty()) return object;
  for (const auto* shares : {&site.waiter_stacks, &site.holder_stacks, &site.hold_stacks}) {
    for (const StackShare& share : *shares) {
      const Frame* frame = calling_frame(frames_of(capture, share.stack));
      if (frame != nullptr) return std::string(to_string(site.primitive)) + " in " + frame->function;
    }
  }
  return to_string(site.primitive);
}

bool is_held(const PthreadObject& object) {
  switch (object.kind) {
    case LS_OBJECT_MUTEX: case LS_OBJECT_RWLOCK: case LS_OBJECT_SPIN:
      return true;
    case LS_OBJECT_SEM:
      return object.hold.count > object.posts + object.taken;
  }
  return false;
}

// Its own holds, in place of those that the futex tier can tell.
void add_object(Site& site, Index index, const PthreadObject& object) {
  site.object = index;
  if (!site.is_lock) return;
  site.hold.add(object.hold);
  site.hold.add(object.read_hold);
  site.hold.count += object.held;
  site.hold.total_ns += object.held_ns;
}

void add_lock(Site& site, const Lock& lock) {
  site.shared = lock.shared;
  site.traits |= lock.traits;
  site.unreleased_ns += lock.unreleased_ns;
  // Words of one object are mostly used by the same threads.
  site.waiters = std::max(site.waiters, lock.waiter_threads);
  site.holders = std::max(site.holders, lock.releaser_threads);
  site.max_waiters = std::max(site.max_waiters, lock.max_waiters);
  site.refused_holds += lock.refused_holds;
  site.waited_releases += lock.waited_releases;
  site.self_releases += lock.self_releases;
  if (lock.owner_tid != 0) site.owner_tid = lock.owner_tid;
}

void add_wait(Site& site, const WaitRow& row) {
  site.wait.add(row.ended);
  site.in_flight += row.in_flight;
  site.in_flight_ns += row.in_flight_ns;
  site.in_flight_max_ns = std::max(site.in_flight_max_ns, row.in_flight_max_ns);
  site.sleeps += row.sleeps;
  site.timeouts += row.timeouts;
  add_share(site.waiter_stacks, row.stack, row.total_ns(), row.ended.count + row.in_flight);
}

// What its holders did. Both tiers may have marked the same holds: what the pthread
// tier saw is all of them. Activities are charged to one of the two.
void add_holders(const Capture& capture, SiteView& view, const std::vector<Index>& site_of_object) {
  const auto site_of = [&](const auto& row) -> Site* {
    const Index site = row.object != kNone ? site_of_object[row.object]
                       : row.lock != kNone ? view.site_of_lock[row.lock]
                                           : kNone;
    return site == kNone || !view.sites[site].is_lock ? nullptr : &view.sites[site];
  };
  for (const bool by_object : {true, false}) {
    std::vector<HoldSplit> splits(view.sites.size());
    for (const SplitRow& row : capture.splits) {
      if ((row.object != kNone) != by_object) continue;
      if (Site* site = site_of(row)) splits[static_cast<size_t>(site - view.sites.data())].add(row.split);
    }
    for (size_t i = 0; i < splits.size(); i++) {
      if (view.sites[i].split.held_ns == 0) view.sites[i].split = splits[i];
    }
  }
  for (const ActivityRow& row : capture.activities) {
    Site* site = site_of(row);
    if (site == nullptr) continue;
    auto& shares = site->activities;
    const auto same = std::find_if(shares.begin(), shares.end(), [&](const ActivityShare& share) {
      return share.stack == row.stack && share.call == row.call;
    });
    ActivityShare& share = same == shares.end() ? shares.emplace_back(ActivityShare{row.stack, row.call}) : *same;
    share.ns += row.total_ns;
    share.count += row.count;
  }
  for (Site& site : view.sites) {
    std::stable_sort(site.activities.begin(), site.activities.end(),
                     [](const auto& a, const auto& b) { return a.ns > b.ns; });
  }
}

}  // namespace

const Frame* calling_frame(const std::vector<Frame>& frames) {
  for (const Frame& frame : frames) {
    if (!is_lock_internals(frame) && !is_system_library(frame)) return &frame;
  }
  return nullptr;
}

HoldSplit Site::hold_split() const {
  if (split.held_ns == 0 || hold.total_ns == 0) return split;
  const double scale = static_cast<double>(hold.total_ns) / static_cast<double>(split.held_ns);
  const auto scaled = [scale](uint64_t ns) {
    return static_cast<uint64_t>(static_cast<double>(ns) * scale);
  };
  return {hold.count, hold.total_ns, scaled(split.runnable_ns), scaled(split.blocked_ns)};
}

SiteView build_sites(const SymbolizedCapture& symbolized) {
  const Capture& capture = symbolized.capture;
  std::vector<Primitive> primitives = classify_locks(symbolized);
  const ObjectFinder finder(capture);
  SiteView view;
  view.totals.resize(capture.processes.size());
  view.site_of_lock.assign(capture.locks.size(), kNone);

  std::map<SiteKey, Index> index;
  for (size_t i = 0; i < capture.locks.size(); i++) {
    const Lock& lock = capture.locks[i];
    const Index known = finder.find(lock);
    SiteKey key = site_key(lock, primitives[i]);
    uint64_t address = lock.address - word_offset(primitives[i], lock.address, lock.traits);
    if (known != kNone) {
      primitives[i] = primitive_of_object(capture.objects[known].kind);
      address = capture.objects[known].address;
      key = site_key(lock, primitives[i]);
      if (!lock.shared && primitives[i] != Primitive::Join) std::get<2>(key) = address;
    }
    const auto [entry, is_new] = index.emplace(key, static_cast<Index>(view.sites.size()));
    if (is_new) {
      Site site;
      site.primitive = primitives[i];
      site.address = address;
      site.object = known;
      site.process = lock.process;
      view.sites.push_back(std::move(site));
    }
    view.site_of_lock[i] = entry->second;
    add_lock(view.sites[entry->second], lock);
  }
  for (Site& site : view.sites) {
    const double releases = static_cast<double>(std::max<uint64_t>(site.waited_releases, 1));
    site.is_lock =
        site.object != kNone && site.primitive != Primitive::Sem
            ? is_held(capture.objects[site.object])
            : is_lock_wait(site.primitive, static_cast<double>(site.self_releases) / releases);
  }

  // What nobody slept for has a site as well.
  std::vector<Index> site_of_object(capture.objects.size(), kNone);
  for (size_t i = 0; i < view.sites.size(); i++) {
    if (view.sites[i].object != kNone) site_of_object[view.sites[i].object] = static_cast<Index>(i);
  }
  for (size_t i = 0; i < capture.objects.size(); i++) {
    const PthreadObject& object = capture.objects[i];
    if (site_of_object[i] != kNone || !is_held(object)) continue;
    site_of_object[i] = static_cast<Index>(view.sites.size());
    Site site;
    site.primitive = primitive_of_object(object.kind);
    site.address = object.address;
    site.process = object.process;
    site.object = static_cast<Index>(i);
    site.is_lock = true;
    view.sites.push_back(std::move(site));
  }

  std::vector<std::map<Index, uint64_t>> waiting_processes(view.sites.size());
  const auto process_of = [&](Index stack, Index lock) {
    if (stack != kNone) return capture.stacks[stack].process;
    return lock == kNone ? kNone : capture.locks[lock].process;
  };
  for (const WaitRow& row : capture.waits) {
    if (row.lock == kNone) continue;
    Site& site = view.sites[view.site_of_lock[row.lock]];
    add_wait(site, row);
    const Index process = process_of(row.stack, row.lock);
    if (process == kNone) continue;
    waiting_processes[view.site_of_lock[row.lock]][process] += row.total_ns();
    ProcessTotals& totals = view.totals[process];
    (site.is_lock ? totals.lock_wait_ns : totals.idle_wait_ns) += row.total_ns();
  }
  for (const ReleaseRow& row : capture.releases) {
    if (row.lock == kNone) continue;
    Site& site = view.sites[view.site_of_lock[row.lock]];
    site.blame_ns += row.blame_ns;
    add_share(site.holder_stacks, row.stack, row.blame_ns, row.count);
    if (site.object == kNone) site.hold.add(row.hold);
    if (site.object == kNone && row.hold.count > 0) {
      add_share(site.hold_stacks, row.stack, row.hold.total_ns, row.hold.count);
    }
    const Index process = process_of(row.stack, row.lock);
    if (site.is_lock && process != kNone) {
      view.totals[process].blame_ns += static_cast<int64_t>(row.blame_ns);
    }
  }
  for (size_t i = 0; i < capture.objects.size(); i++) {
    if (site_of_object[i] == kNone) continue;
    add_object(view.sites[site_of_object[i]], static_cast<Index>(i), capture.objects[i]);
  }
  for (const HoldRow& row : capture.holds) {
    if (row.object == kNone || site_of_object[row.object] == kNone) continue;
    Site& site = view.sites[site_of_object[row.object]];
    if (site.is_lock) add_share(site.hold_stacks, row.stack, row.total_ns, row.count);
  }
  add_holders(capture, view, site_of_object);
  for (Site& site : view.sites) {
    if (site.object != kNone) continue;
    // Those that can be told are the long ones, by the way they are told: with
    // more than this share missing, the rest is no sample of them.
    constexpr double kMaxRefused = 0.1;
    const double refused = static_cast<double>(site.refused_holds);
    if (!site.is_lock || refused > kMaxRefused * (refused + static_cast<double>(site.hold.count))) {
      site.hold = {};
      site.hold_stacks.clear();
    }
  }
  for (size_t i = 0; i < capture.locks.size(); i++) {
    // Not released yet: whoever holds it is in the lock's own process, as far
    // as one can tell.
    const Lock& lock = capture.locks[i];
    if (view.sites[view.site_of_lock[i]].is_lock && lock.process != kNone) {
      view.totals[lock.process].blame_ns += lock.unreleased_ns;
    }
  }

  std::unordered_map<Index, std::string> objects;
  for (size_t i = 0; i < capture.locks.size(); i++) {
    std::string name = name_object(capture.locks[i], primitives[i]);
    if (!name.empty()) objects[view.site_of_lock[i]] = std::move(name);
  }
  for (size_t i = 0; i < capture.objects.size(); i++) {
    const PthreadObject& object = capture.objects[i];
    if (site_of_object[i] == kNone || object.object.empty()) continue;
    objects[site_of_object[i]] = variable_name(object.object, object.object_offset);
  }
  for (size_t i = 0; i < view.sites.size(); i++) {
    Site& site = view.sites[i];
    uint64_t most = 0;
    for (const auto& [process, ns] : waiting_processes[i]) {
      if (ns > most) {
        most = ns;
        site.process = process;
      }
    }
    sort_shares(site.waiter_stacks);
    sort_shares(site.holder_stacks);
    sort_shares(site.hold_stacks);
    site.name = name_site(site, symbolized, objects[static_cast<Index>(i)]);
  }

  // Most waiting first; indices in site_of_lock follow.
  std::vector<Index> order(view.sites.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<Index>(i);
  std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
    return view.sites[a].wait_ns() > view.sites[b].wait_ns();
  });
  std::vector<Index> place(order.size());
  std::vector<Site> sorted;
  for (size_t i = 0; i < order.size(); i++) {
    place[order[i]] = static_cast<Index>(i);
    sorted.push_back(std::move(view.sites[order[i]]));
  }
  view.sites = std::move(sorted);
  for (Index& site : view.site_of_lock) site = place[site];
  return view;
}

}  // namespace lockscope
