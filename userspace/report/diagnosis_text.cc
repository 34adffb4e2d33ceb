#include "report/diagnosis_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "capture/stack_coverage.h"
#include "text/format.h"
#include "text/holder_call.h"

namespace lockscope {
namespace {

constexpr size_t kMaxStacks = 3;   // of waiters, and of holders, for one finding
constexpr size_t kMaxFrames = 8;  // of one stack
// Findings that took less than this share of one thread's time are counted,
// not shown.
constexpr double kWorthShowing = 0.001;

// From the program's own innermost frame outwards: how a library takes a lock
// is the same everywhere (and in the JSON).
std::vector<const Frame*> own_frames(const std::vector<Frame>& frames) {
  const Frame* caller = calling_frame(frames);
  std::vector<const Frame*> shown;
  for (size_t i = caller == nullptr ? 0 : static_cast<size_t>(caller - frames.data());
       i < frames.size(); i++) {
    const Frame& frame = frames[i];
    // The standard library's templates, inlined, say nothing of the program.
    if (frame.inlined && frame.file.find("/include/c++/") != std::string::npos) continue;
    shown.push_back(&frame);
  }
  return shown;
}

void append_frames(std::string& out, const std::vector<Frame>& frames) {
  const std::vector<const Frame*> shown = own_frames(frames);
  for (size_t i = 0; i < shown.size() && i < kMaxFrames; i++) {
    out += "             " + frame_line(*shown[i]) + "\n";
  }
  if (shown.size() > kMaxFrames) {
    out += fmt::format("             ... {} more frames\n", shown.size() - kMaxFrames);
  }
}

void append_stacks(std::string& out, const Diagnosis& diagnosis, const char* title,
                   const std::vector<StackShare>& shares, uint64_t total_ns, const char* unit) {
  if (shares.empty()) return;
  out += fmt::format("   {}:\n", title);
  size_t shown = 0;
  for (const StackShare& share : shares) {
    if (shown++ == kMaxStacks) {
      out += fmt::format("     and {} more\n", shares.size() - kMaxStacks);
      break;
    }
    out += fmt::format("     {:>6}  {}, {} {}\n",
                       format_percent(total_ns == 0 ? 0
                                                    : static_cast<double>(share.ns) /
                                                          static_cast<double>(total_ns)),
                       format_ns(static_cast<double>(share.ns)), format_count(share.count), unit);
    if (share.stack == kNone) {
      out += "             (no stack)\n";
      continue;
    }
    append_frames(out, diagnosis.capture.frames[share.stack]);
    if (!diagnosis.capture.whole(share.stack)) out += "             (stack incomplete)\n";
  }
}

// What holds were estimated from, where probes were not there all of the time.
void append_estimate(std::string& out, const Diagnosis& diagnosis, const Site& site) {
  const Capture& capture = diagnosis.capture.capture;
  const Quality& quality = capture.quality;
  if (site.object == kNone || quality.pthread_slices == 0 || site.hold.count == 0) return;
  const double mean =
      static_cast<double>(site.hold.total_ns) / static_cast<double>(site.hold.count);
  out += fmt::format("   holds, estimated from {} {} of time ({} of it all): {} of them, {} on average",
                     quality.pthread_slices, quality.pthread_slices == 1 ? "slice" : "slices",
                     format_percent(quality.pthread_share), format_count(site.hold.count),
                     format_ns(mean));
  if (quality.pthread_slices > 2) {
    out += fmt::format(" (standard errors {} and {})",
                       format_percent(capture.objects[site.object].count_error),
                       format_percent(capture.objects[site.object].mean_error));
  }
  out += "\n";
}

// Activities that differ only within libraries, or by line, as one, most time first.
std::vector<ActivityShare> merged_activities(const Diagnosis& diagnosis, const Site& site) {
  std::vector<ActivityShare> merged;
  std::map<std::string, size_t> known;
  for (const ActivityShare& activity : site.activities) {
    std::string key = std::to_string(activity.call);
    if (activity.stack != kNone) {
      for (const Frame* frame : own_frames(diagnosis.capture.frames[activity.stack])) {
        key += '\n' + frame->function;
      }
    }
    const auto [entry, is_new] = known.emplace(std::move(key), merged.size());
    if (is_new) {
      merged.push_back(activity);
    } else {
      merged[entry->second].ns += activity.ns;
      merged[entry->second].count += activity.count;
    }
  }
  std::stable_sort(merged.begin(), merged.end(),
                   [](const auto& a, const auto& b) { return a.ns > b.ns; });
  return merged;
}

// What holders did: the parts of the time, then where most of it went.
void append_split(std::string& out, const Diagnosis& diagnosis, const Site& site) {
  // Less than this of the holds is not what makes them long.
  constexpr double kWorthALine = 0.02;
  const HoldSplit& split = site.split;
  if (split.held_ns == 0) return;
  const auto share_of = [&](uint64_t ns) {
    return static_cast<double>(ns) / static_cast<double>(split.held_ns);
  };
  out += fmt::format("   while it was held ({}): {} running, {} waiting for a CPU, {} blocked:\n",
                     format_ns(static_cast<double>(split.held_ns)),
                     format_percent(share_of(split.running_ns())),
                     format_percent(share_of(split.runnable_ns)),
                     format_percent(share_of(split.blocked_ns)));
  size_t shown = 0;
  for (const ActivityShare& activity : merged_activities(diagnosis, site)) {
    if (share_of(activity.ns) < kWorthALine || shown++ == kMaxStacks) break;
    const std::string call = holder_call(activity.call);
    out += fmt::format("     {:>6}  {}, {} {}\n", format_percent(share_of(activity.ns)),
                       call.empty() ? "running" : "blocked in " + printable(call),
                       format_count(activity.count), call.empty() ? "samples" : "times");
    if (activity.stack == kNone) {
      out += "             (no stack)\n";
      continue;
    }
    append_frames(out, diagnosis.capture.frames[activity.stack]);
    if (!diagnosis.capture.whole(activity.stack)) out += "             (stack incomplete)\n";
  }
}

void append_finding(std::string& out, const Diagnosis& diagnosis, const Finding& finding,
                    size_t number) {
  const Site& site = diagnosis.view.sites[finding.site];
  out += fmt::format("{}. {}: {}", number, to_string(finding.verdict), finding.shape);
  if (finding.verdict != Verdict::Unknown) {
    out += fmt::format(" (confidence {:.2f})", finding.confidence);
  }
  out += fmt::format("\n   {} in {}, at {:#x}{}\n", printable(site.name),
                     process_label(diagnosis, site.process), site.address,
                     site.shared ? ", shared between processes" : "");
  for (const std::string& sentence : finding.evidence) out += "   - " + sentence + "\n";
  append_stacks(out, diagnosis, "waiting", site.waiter_stacks, site.wait_ns(), "waits");
  append_stacks(out, diagnosis, "released by, with the waiting that they ended",
                site.holder_stacks, site.blame_ns, "releases");
  append_estimate(out, diagnosis, site);
  append_split(out, diagnosis, site);
  out += "   Fix: " + finding.fix + "\n\n";
}

void append_healthy(std::string& out, const Diagnosis& diagnosis) {
  struct Idle {
    uint64_t ns = 0;
    size_t sites = 0;
    uint64_t most_ns = 0;
    std::string most;
  };
  std::map<Index, Idle> idle;
  for (const Finding& finding : diagnosis.findings) {
    if (finding.verdict != Verdict::Healthy) continue;
    const Site& site = diagnosis.view.sites[finding.site];
    Idle& process = idle[site.process];
    process.ns += site.wait_ns();
    process.sites++;
    if (site.wait_ns() >= process.most_ns) {
      process.most_ns = site.wait_ns();
      process.most = site.name;
    }
  }
  std::vector<std::pair<Index, Idle>> order(idle.begin(), idle.end());
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.second.ns > b.second.ns; });
  constexpr size_t kMaxProcesses = 10;
  for (size_t i = 0; i < order.size() && i < kMaxProcesses; i++) {
    const auto& [process, waits] = order[i];
    out += fmt::format("Healthy: {} waited {} for work, time or a thread's end at {} {}, most of "
                       "it at {}.\n",
                       process_label(diagnosis, process), format_ns(static_cast<double>(waits.ns)),
                       waits.sites, waits.sites == 1 ? "place" : "places", printable(waits.most));
  }
  if (order.size() > kMaxProcesses) {
    out += fmt::format("Healthy: and {} more processes.\n", order.size() - kMaxProcesses);
  }
}

}  // namespace

std::string process_label(const Diagnosis& diagnosis, Index process) {
  if (process == kNone) return "?";
  const Process& known = diagnosis.capture.capture.processes[process];
  return fmt::format("{}[{}]", known.comm.empty() ? "?" : printable(known.comm), known.pid);
}

std::string frame_line(const Frame& frame) {
  std::string line = printable(frame.function);
  if (!frame.file.empty()) line += fmt::format(" {}:{}", printable(frame.file), frame.line);
  if (frame.inlined) line += " (inlined)";
  if (!frame.module.empty() && !frame.function.starts_with(frame.module)) {
    line += " [" + printable(frame.module) + "]";
  }
  return line;
}

std::string headline(const Diagnosis& diagnosis) {
  const Capture& capture = diagnosis.capture.capture;
  std::string tiers;
  for (const std::string& tier : capture.tiers) tiers += (tiers.empty() ? "" : ", ") + printable(tier);
  return fmt::format("lockscope: {}, {:.1f} s, tier: {}, kernel {}\n", printable(capture.target),
                     static_cast<double>(capture.duration_ns) * 1e-9, tiers,
                     printable(capture.kernel));
}

std::string quality_line(const Diagnosis& diagnosis) {
  const Quality& quality = diagnosis.capture.capture.quality;
  const size_t stacks = diagnosis.capture.capture.stacks.size();
  std::string lost;
  for (const auto& [reason, count] : quality.lost) {
    lost += fmt::format("{}{} {}", lost.empty() ? "" : ", ", printable(reason), format_count(count));
  }
  std::string line = fmt::format(
      "Data: {} futex calls; lost: {}; {} holds not matched; {} distinct stacks",
      format_count(quality.calls), lost.empty() ? "nothing" : lost,
      format_count(quality.unmatched), format_count(stacks));
  if (quality.sampled_events < quality.events) {
    line += fmt::format(" from a sample of {} of {} events",
                        format_percent(static_cast<double>(quality.sampled_events) /
                                       static_cast<double>(quality.events)),
                        format_count(quality.events));
  }
  if (quality.complete_stacks > 0) {
    line += fmt::format(", {} complete", format_count(quality.complete_stacks));
  }
  if (quality.guessed_stacks > 0) {
    line += fmt::format(", {} by frame pointers alone", format_count(quality.guessed_stacks));
  }
  if (quality.broken_stacks > 0) {
    line += fmt::format(", {} broken off", format_count(quality.broken_stacks));
  }
  if (quality.truncated_stacks > 0) {
    line += fmt::format(", {} cut at {} frames", format_count(quality.truncated_stacks),
                        LS_UNWIND_MAX_FRAMES);
  }
  const StackCoverage coverage = stack_coverage(diagnosis.capture.capture);
  if (coverage.all.wait_ns > 0) {
    line += fmt::format("; whole stacks for {} of the waiting",
                        format_percent(static_cast<double>(coverage.whole.wait_ns) /
                                       static_cast<double>(coverage.all.wait_ns)));
  }
  line += fmt::format("; lockscope itself: {} of the machine's CPU time.\n",
                      format_percent(quality.self_cpu_share));
  return line;
}

std::string diagnosis_text(const Diagnosis& diagnosis) {
  std::string out = headline(diagnosis) + "\n";
  const double worth_ns =
      kWorthShowing * static_cast<double>(diagnosis.capture.capture.duration_ns);
  size_t number = 0, minor = 0;
  uint64_t minor_ns = 0;
  for (const Finding& finding : diagnosis.findings) {
    if (finding.verdict == Verdict::Healthy) continue;
    const uint64_t ns = diagnosis.view.sites[finding.site].wait_ns();
    if (static_cast<double>(ns) < worth_ns && finding.verdict == Verdict::Unknown) {
      minor++;
      minor_ns += ns;
      continue;
    }
    append_finding(out, diagnosis, finding, ++number);
  }
  if (number == 0) {
    out += diagnosis.findings.empty() ? "No waiting was seen.\n" : "No contention worth a word.\n";
  }
  if (minor > 0) {
    out += fmt::format("Minor: {} more locks, {} of waiting in all.\n", minor,
                       format_ns(static_cast<double>(minor_ns)));
  }
  append_healthy(out, diagnosis);
  for (const std::string& reason : diagnosis.withheld) {
    out += "Verdicts withheld: " + reason + ".\n";
  }
  out += quality_line(diagnosis);
  return out;
}

}  // namespace lockscope
