#include "diagnose/thread_view.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "capture/stack_coverage.h"

namespace lockscope {
namespace {

const std::vector<Frame> kNoFrames;

std::vector<WaitCycle> cycles_of(const ThreadView& view) {
  const auto& threads = view.census.threads;
  std::vector<Index> waits_for(threads.size(), kNone);
  for (Index i = 0; i < threads.size(); i++) {
    const Index holder = view.waits[i].holder;
    // Who ran since may have released what it held, or wait no longer.
    if (threads[i].still && holder != kNone && threads[holder].still) waits_for[i] = holder;
  }
  return find_cycles(waits_for);
}

bool runs(const CensusThread& thread) {
  return thread.state == ThreadState::Running || thread.state == ThreadState::Runnable;
}

std::vector<ThreadCounts> counts_of(const ThreadView& view) {
  std::vector<ThreadCounts> counts(view.census.named.capture.processes.size());
  for (Index i = 0; i < view.census.threads.size(); i++) {
    const CensusThread& thread = view.census.threads[i];
    ThreadCounts& of = counts[thread.process];
    if (view.waits[i].is_lock) {
      of.waiting_for_locks++;
    } else if (runs(thread)) {
      of.running++;
    } else if (thread.state == ThreadState::Sleeping || thread.state == ThreadState::DiskSleep) {
      of.asleep++;
    } else {
      of.other++;
    }
  }
  return counts;
}

void split_by_object(const ThreadView& view, ThreadGroup& group) {
  std::map<std::tuple<Primitive, uint64_t, Index, int32_t>, std::vector<Index>> objects;
  for (const Index thread : group.threads) {
    const ThreadWait& wait = view.waits[thread];
    if (!wait.known) return;
    objects[{wait.primitive, wait.address, wait.holder, wait.lost_holder}].push_back(thread);
  }
  for (auto& [object, threads] : objects) group.by_object.push_back(std::move(threads));
  std::sort(group.by_object.begin(), group.by_object.end(), [](const auto& a, const auto& b) {
    return a.size() != b.size() ? a.size() > b.size() : a.front() < b.front();
  });
}

std::vector<ThreadGroup> groups_of(const ThreadView& view) {
  const auto& threads = view.census.threads;
  using Key = std::tuple<Index, Index, StackTaken, ThreadState, int64_t, bool, Primitive>;
  std::map<Key, ThreadGroup> groups;
  for (Index i = 0; i < threads.size(); i++) {
    const CensusThread& thread = threads[i];
    const ThreadWait& wait = view.waits[i];
    groups[{thread.process, thread.stack, thread.taken, thread.state, thread.call, wait.known,
            wait.primitive}]
        .threads.push_back(i);
  }
  std::vector<ThreadGroup> ordered;
  for (auto& [key, group] : groups) {
    split_by_object(view, group);
    ordered.push_back(std::move(group));
  }
  const auto rank = [&](const ThreadGroup& group) {
    const Index first = group.threads.front();
    return std::tuple(threads[first].process, !view.waits[first].is_lock, !runs(threads[first]),
                      -static_cast<int64_t>(group.threads.size()), first);
  };
  std::sort(ordered.begin(), ordered.end(),
            [&](const ThreadGroup& a, const ThreadGroup& b) { return rank(a) < rank(b); });
  return ordered;
}

}  // namespace

const std::vector<Frame>& ThreadView::frames(Index thread) const {
  const Index stack = census.threads[thread].stack;
  return stack == kNone ? kNoFrames : census.named.frames[stack];
}

const char* ThreadView::why_incomplete(Index thread) const {
  const CensusThread& it = census.threads[thread];
  switch (it.taken) {
    case StackTaken::None: return it.state == ThreadState::Ended ? "it has ended" : "not taken";
    case StackTaken::Is32Bit: return "32-bit code";
    case StackTaken::LastEntry: return "it runs: as of its last entry into the kernel";
    case StackTaken::Moved: return "it ran while its stack was read";
    case StackTaken::Still: break;
  }
  return lockscope::why_incomplete(census.named.capture, it.stack);
}

ThreadView view_threads(SymbolizedCensus census) {
  ThreadView view;
  view.census = std::move(census);
  view.waits = find_waits(view.census);
  view.counts = counts_of(view);
  view.cycles = cycles_of(view);
  view.groups = groups_of(view);
  for (Index i = 0; i < view.census.threads.size(); i++) {
    const char* why = view.why_incomplete(i);
    why == nullptr ? view.whole_stacks++ : view.incomplete_stacks[why]++;
  }
  return view;
}

}  // namespace lockscope
