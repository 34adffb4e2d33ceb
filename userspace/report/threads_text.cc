#include "report/threads_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "diagnose/sites.h"
#include "report/diagnosis_text.h"
#include "report/threads_json.h"
#include "text/format.h"

namespace lockscope {
namespace {

// Of one list; the JSON has them all.
constexpr size_t kMaxRanges = 8;
constexpr size_t kMaxNames = 4;
constexpr size_t kMaxObjects = 6;

const CensusThread& thread_at(const ThreadView& view, Index thread) {
  return view.census.threads[thread];
}

const Process& process_of(const ThreadView& view, Index thread) {
  return view.census.named.capture.processes[thread_at(view, thread).process];
}

// Its process too, where there are several.
std::string name_of(const ThreadView& view, Index thread) {
  const std::string& comm = thread_at(view, thread).comm;
  std::string name = comm.empty() ? "?" : printable(comm);
  if (view.census.named.capture.processes.size() > 1) {
    name += fmt::format(" of {}", process_of(view, thread).pid);
  }
  return name;
}

// "1234 (worker)"
std::string thread_label(const ThreadView& view, Index thread) {
  return fmt::format("{} ({})", thread_at(view, thread).tid, name_of(view, thread));
}

// "12-14, 20"; `tids` are in order.
std::string ranges(const std::vector<int32_t>& tids) {
  std::string list;
  size_t pieces = 0;
  for (size_t i = 0; i < tids.size();) {
    size_t end = i + 1;
    while (end < tids.size() && tids[end] == tids[end - 1] + 1) end++;
    if (pieces++ == kMaxRanges) return list + fmt::format(" and {} more", tids.size() - i);
    list += (i == 0 ? "" : ", ") + std::to_string(tids[i]);
    if (end - i > 1) list += fmt::format("{}{}", end - i > 2 ? "-" : ", ", tids[end - 1]);
    i = end;
  }
  return list;
}

// "12-14, 20 (worker), 15 (main)"; names that differ in a number at their end are
// one: "12-14 (worker-*)".
std::string list_threads(const ThreadView& view, const std::vector<Index>& threads) {
  struct Named {
    std::string name;
    bool is_numbered = false;
    std::vector<int32_t> tids;
  };
  std::vector<Named> order;
  std::map<std::string, size_t> known;
  for (const Index thread : threads) {
    const std::string name = name_of(view, thread);
    const size_t digits = name.find_last_not_of("0123456789") + 1;
    const auto [at, is_new] = known.try_emplace(name.substr(0, digits), order.size());
    if (is_new) order.push_back({.name = name});
    Named& named = order[at->second];
    if (named.name != name) {
      named.name = at->first;
      named.is_numbered = true;
    }
    named.tids.push_back(thread_at(view, thread).tid);
  }
  std::string list;
  for (size_t i = 0; i < order.size(); i++) {
    if (i == kMaxNames) return list + fmt::format(", and {} more names", order.size() - i);
    list += fmt::format("{}{} ({}{})", i == 0 ? "" : ", ", ranges(order[i].tids), order[i].name,
                        order[i].is_numbered ? "*" : "");
  }
  return list;
}

// "mutex g_lock at 0x..."
std::string object_label(const ThreadWait& wait) {
  return fmt::format("{}{} at {:#x}{}{}", to_string(wait.primitive),
                     wait.name.empty() ? "" : " " + printable(wait.name), wait.address,
                     wait.shared && wait.is_lock ? ", shared between processes" : "",
                     wait.timed ? ", with a time-out" : "");
}

// "waits for mutex g_lock at 0x..., held by thread 12 (worker)"
std::string wait_label(const ThreadView& view, Index thread) {
  const ThreadWait& wait = view.waits[thread];
  if (wait.primitive == Primitive::Join) {
    return wait.holder == kNone ? "waits for a thread to end"
                                : "waits for the end of thread " + thread_label(view, wait.holder);
  }
  std::string label = "waits for " + object_label(wait);
  if (wait.holder == thread) return label + ", which it holds itself";
  if (wait.holder != kNone) return label + ", held by thread " + thread_label(view, wait.holder);
  if (wait.lost_holder == 0) return label;
  // After fork() the child has the parent's locks and none of its threads.
  return label + fmt::format(", held by thread {}, which this process does not have (any more): "
                             "nobody will release it", wait.lost_holder);
}

// "for 3.2 s", "for 1.0 ms to 3.2 s"
std::string asleep_label(const ThreadView& view, const std::vector<Index>& threads) {
  const auto [least, most] = std::minmax_element(
      threads.begin(), threads.end(), [&](Index a, Index b) {
        return thread_at(view, a).asleep_ns < thread_at(view, b).asleep_ns;
      });
  const uint64_t from_ns = thread_at(view, *least).asleep_ns;
  if (from_ns == 0) return "";
  const std::string from = format_ns(static_cast<double>(from_ns));
  const std::string to = format_ns(static_cast<double>(thread_at(view, *most).asleep_ns));
  return from == to ? " for " + to : fmt::format(" for {} to {}", from, to);
}

// "sleeping in futex for 3.2 s"
std::string state_label(const ThreadView& view, const std::vector<Index>& threads) {
  const CensusThread& thread = thread_at(view, threads.front());
  std::string label = thread.state == ThreadState::Runnable ? "runnable, waiting for a CPU"
                                                            : to_string(thread.state);
  if (thread.call >= 0) {
    label += " in " + (thread.call_name.empty() ? fmt::format("system call {}", thread.call)
                                                : thread.call_name);
  }
  return label + asleep_label(view, threads);
}

// "sleeping in clock_nanosleep for 3.2 s, in Cache::load cache.cc:12 [app]"
std::string whereabouts(const ThreadView& view, Index thread) {
  const Frame* caller = calling_frame(view.frames(thread));
  return state_label(view, {thread}) + (caller ? ", in " + frame_line(*caller) : "");
}

// Recursion takes one line.
void append_frames(std::string& out, const ThreadView& view, Index thread) {
  const auto& frames = view.frames(thread);
  std::string last;
  size_t repeated = 0;
  const auto end_line = [&] {
    if (!last.empty()) out += last + (repeated > 1 ? fmt::format(" ({} times)\n", repeated) : "\n");
  };
  for (const Frame& frame : frames) {
    // The standard library's templates, inlined, say nothing of the program.
    if (frame.inlined && frame.file.find("/include/c++/") != std::string::npos) continue;
    std::string line = "       " + frame_line(frame);
    if (line == last) {
      repeated++;
      continue;
    }
    end_line();
    last = std::move(line);
    repeated = 1;
  }
  end_line();
  if (const char* why = view.why_incomplete(thread)) {
    out += fmt::format("       ({}: {})\n", frames.empty() ? "no stack" : "stack incomplete", why);
  }
}

void append_cycle(std::string& out, const ThreadView& view, const WaitCycle& cycle) {
  const bool timed = std::any_of(cycle.threads.begin(), cycle.threads.end(),
                                 [&](Index thread) { return view.waits[thread].timed; });
  const size_t size = cycle.threads.size();
  out += fmt::format("{}: {}\n", timed ? "DEADLOCK until a time-out" : "DEADLOCK",
                     size == 1 ? "a thread waits for itself"
                               : fmt::format("{} threads wait for each other", size));
  for (const Index thread : cycle.threads) {
    out += fmt::format("   thread {} {}\n", thread_label(view, thread), wait_label(view, thread));
    const Frame* caller = calling_frame(view.frames(thread));
    if (caller) out += "       in " + frame_line(*caller) + "\n";
  }
  if (!cycle.behind.empty()) {
    out += fmt::format("   behind them: {}\n", list_threads(view, cycle.behind));
  }
  out += "\n";
}

// What the threads of a group wait for, and where its holder is.
void append_objects(std::string& out, const ThreadView& view, const ThreadGroup& group) {
  const auto& objects = group.by_object;
  const Index first = group.threads.front();
  if (objects.size() > 1 && view.waits[first].primitive == Primitive::Join) {
    out += fmt::format("   each waits for one of {} threads to end\n",
                       format_count(objects.size()));
    return;
  }
  if (objects.size() > 1 && !view.waits[first].is_lock) {
    out += fmt::format("   each waits for one of {} objects ({})\n", format_count(objects.size()),
                       to_string(view.waits[first].primitive));
    return;
  }
  for (size_t i = 0; i < objects.size(); i++) {
    if (i == kMaxObjects) {
      out += fmt::format("   and {} more waited for\n", format_count(objects.size() - i));
      return;
    }
    const Index waiter = objects[i].front();
    out += "   " + (objects.size() == 1 ? "" : list_threads(view, objects[i]) + " ") +
           wait_label(view, waiter) + "\n";
    const ThreadWait& wait = view.waits[waiter];
    if (wait.is_lock && wait.holder != kNone && wait.holder != waiter) {
      out += "      its holder is " + whereabouts(view, wait.holder) + "\n";
    }
  }
}

void append_group(std::string& out, const ThreadView& view, const ThreadGroup& group) {
  const size_t count = group.threads.size();
  out += fmt::format("{} {}: {}\n", format_count(count), count == 1 ? "thread" : "threads",
                     list_threads(view, group.threads));
  out += "   " + state_label(view, group.threads) + "\n";
  append_objects(out, view, group);
  append_frames(out, view, group.threads.front());
  out += "\n";
}

void append_process(std::string& out, const ThreadView& view, Index process) {
  const Process& it = view.census.named.capture.processes[process];
  const ThreadCounts& counts = view.counts[process];
  out += fmt::format("{}[{}]: {} {}; {} waiting for locks, {} running or runnable, {} asleep "
                     "otherwise", it.comm.empty() ? "?" : printable(it.comm), it.pid,
                     format_count(it.threads), it.threads == 1 ? "thread" : "threads",
                     format_count(counts.waiting_for_locks), format_count(counts.running),
                     format_count(counts.asleep));
  if (counts.other > 0) out += fmt::format(", {} stopped or ended", format_count(counts.other));
  out += "\n\n";
}

std::string stacks_line(const ThreadView& view) {
  std::string line = fmt::format("Data: {} of {} stacks complete",
                                 format_count(view.whole_stacks),
                                 format_count(view.census.threads.size()));
  for (const auto& [why, count] : view.incomplete_stacks) {
    line += fmt::format("; {}: {}", format_count(count), why);
  }
  std::string lost;
  for (const auto& [reason, count] : view.census.named.capture.quality.lost) {
    lost += fmt::format("{}{} {}", lost.empty() ? "" : ", ", printable(reason), format_count(count));
  }
  return line + (lost.empty() ? "" : "; lost: " + lost) + ".\n";
}

}  // namespace

std::string threads_text(const ThreadView& view) {
  const Capture& capture = view.census.named.capture;
  std::string out = fmt::format("lockscope: {}, {} threads within {}, kernel {}\n\n",
                                printable(capture.target),
                                format_count(view.census.threads.size()),
                                format_ns(static_cast<double>(capture.duration_ns)),
                                printable(capture.kernel));
  for (const WaitCycle& cycle : view.cycles) append_cycle(out, view, cycle);
  Index last = kNone;
  for (const ThreadGroup& group : view.groups) {
    const Index process = thread_at(view, group.threads.front()).process;
    if (process != last) append_process(out, view, process);
    last = process;
    append_group(out, view, group);
  }
  return out + stacks_line(view);
}

}  // namespace lockscope
