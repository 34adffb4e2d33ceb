#include "report/diagnosis_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "capture/stack_coverage.h"
#include "text/holder_call.h"

namespace lockscope {

using nlohmann::json;

namespace {

// Stacks listed for each finding; the rest are in `lockscope report`.
constexpr size_t kMaxStacks = 10;

json stacks_json(const Diagnosis& diagnosis, const std::vector<StackShare>& shares) {
  json stacks = json::array();
  for (const StackShare& share : shares) {
    if (stacks.size() == kMaxStacks) break;
    stacks.push_back({{"ns", share.ns},
                      {"count", share.count},
                      {"complete", diagnosis.capture.whole(share.stack)},
                      {"incomplete_because", incomplete_json(diagnosis, share.stack)},
                      {"frames", frames_json(diagnosis, share.stack)}});
  }
  return stacks;
}

json activities_json(const Diagnosis& diagnosis, const Site& site) {
  json stacks = json::array();
  for (const ActivityShare& share : site.activities) {
    if (stacks.size() == kMaxStacks) break;
    const std::string call = holder_call(share.call);
    stacks.push_back({{"ns", share.ns},
                      {"count", share.count},
                      {"state", call.empty() ? "running" : "blocked"},
                      {"call", call.empty() ? json(nullptr) : json(call)},
                      {"complete", diagnosis.capture.whole(share.stack)},
                      {"incomplete_because", incomplete_json(diagnosis, share.stack)},
                      {"frames", frames_json(diagnosis, share.stack)}});
  }
  return stacks;
}

json finding_json(const Diagnosis& diagnosis, const Finding& finding) {
  const Capture& capture = diagnosis.capture.capture;
  const Site& site = diagnosis.view.sites[finding.site];
  const Process* process =
      site.process == kNone ? nullptr : &capture.processes[site.process];
  json wait = durations_json(site.wait);
  wait["count"] = site.wait.count + site.in_flight;
  wait["total_ns"] = site.wait_ns();
  wait["max_ns"] = site.max_wait_ns();
  wait["in_flight"] = site.in_flight;
  wait["timeouts"] = site.timeouts;
  json result = {
      {"shape", finding.shape},
      {"catalogue", finding.catalogue == 0 ? json(nullptr) : json(finding.catalogue)},
      {"verdict", to_string(finding.verdict)},
      {"confidence", finding.confidence},
      {"pid", process ? process->pid : 0},
      {"comm", process ? process->comm : ""},
      {"site",
       {{"kind", to_string(site.primitive)},
        {"address", fmt::format("{:#x}", site.address)},
        {"name", site.name},
        {"shared", site.shared},
        {"lock", site.is_lock}}},
      {"wait", std::move(wait)},
      {"hold", hold_json(diagnosis, site)},
      {"waiters", site.waiters},
      {"holders", site.holders},
      {"max_waiters", site.max_waiters},
      {"blame_ns", static_cast<int64_t>(site.blame_ns) + site.unreleased_ns},
      {"unreleased_ns", site.unreleased_ns},
      {"owner_tid", site.owner_tid == 0 ? json(nullptr) : json(site.owner_tid)},
      {"evidence", finding.evidence},
      {"fix", finding.fix},
      {"waiter_stacks", stacks_json(diagnosis, site.waiter_stacks)},
      {"holder_stacks", stacks_json(diagnosis, site.holder_stacks)},
      {"critical_section", activities_json(diagnosis, site)},
  };
  return result;
}

// A program that did nothing of note before it became another by exec: the same
// PID stands in the list with what that one did.
bool is_empty_namesake(const Diagnosis& diagnosis, size_t index) {
  const auto& processes = diagnosis.capture.capture.processes;
  const ProcessTotals& totals = diagnosis.view.totals[index];
  if (totals.lock_wait_ns + totals.idle_wait_ns != 0 || totals.blame_ns != 0) return false;
  for (size_t i = 0; i < processes.size(); i++) {
    if (i != index && processes[i].pid == processes[index].pid) return true;
  }
  return false;
}

json amount_json(const StackCoverage::Amount& amount) {
  return {{"distinct", amount.stacks},
          {"waits", amount.waits},
          {"wait_ns", amount.wait_ns},
          {"releases", amount.releases}};
}

json coverage_json(const Capture& capture) {
  const StackCoverage coverage = stack_coverage(capture);
  json incomplete = json::object();
  for (const auto& [why, amount] : coverage.incomplete) incomplete[why] = amount_json(amount);
  return {{"all", amount_json(coverage.all)},
          {"whole", amount_json(coverage.whole)},
          {"incomplete", std::move(incomplete)}};
}

}  // namespace

json durations_json(const Durations& durations) {
  return {{"count", durations.count},
          {"total_ns", durations.total_ns},
          {"p50_ns", durations.histogram.percentile(0.5, durations.max_ns)},
          {"p99_ns", durations.histogram.percentile(0.99, durations.max_ns)},
          {"max_ns", durations.max_ns}};
}

json hold_json(const Diagnosis& diagnosis, const Site& site) {
  json hold = durations_json(site.hold);
  const bool split = site.split.held_ns > 0;
  const HoldSplit parts = site.hold_split();
  hold["running_ns"] = split ? json(parts.running_ns()) : json(nullptr);
  hold["runnable_ns"] = split ? json(parts.runnable_ns) : json(nullptr);
  hold["blocked_ns"] = split ? json(parts.blocked_ns) : json(nullptr);
  hold["split_ns"] = split ? json(site.split.held_ns) : json(nullptr);
  hold["source"] = site.object != kNone ? "pthread" : site.hold.count > 0 ? json("futex") : json(nullptr);
  if (site.object == kNone) return hold;
  const PthreadObject& object = diagnosis.capture.capture.objects[site.object];
  hold["contended"] = object.contended;
  hold["in_flight"] = object.held;
  hold["failed"] = object.failed;
  hold["before_capture"] = object.before;
  const Quality& quality = diagnosis.capture.capture.quality;
  hold["observed_share"] = quality.pthread_share;
  const bool known = quality.pthread_slices > 2;
  hold["count_error"] = known ? json(object.count_error) : json(nullptr);
  hold["total_error"] = known ? json(object.total_error) : json(nullptr);
  hold["mean_error"] = known ? json(object.mean_error) : json(nullptr);
  return hold;
}

json frames_json(const Diagnosis& diagnosis, Index stack) {
  return stack == kNone ? json::array() : frames_json(diagnosis.capture.frames[stack]);
}

json frames_json(const std::vector<Frame>& frames) {
  json out = json::array();
  for (const Frame& frame : frames) {
    out.push_back({{"function", frame.function},
                   {"file", frame.file},
                   {"line", frame.line},
                   {"module", frame.module},
                   {"inlined", frame.inlined}});
  }
  return out;
}

json incomplete_json(const Diagnosis& diagnosis, Index stack) {
  const char* why = why_incomplete(diagnosis.capture.capture, stack);
  return why ? json(why) : json(nullptr);
}

json capture_json(const Diagnosis& diagnosis) {
  const Capture& capture = diagnosis.capture.capture;
  const Quality& quality = capture.quality;
  return {{"host", capture.host},
          {"kernel", capture.kernel},
          {"target", capture.target},
          {"start_unix_ns", capture.start_unix_ns},
          {"duration_s", static_cast<double>(capture.duration_ns) * 1e-9},
          {"tiers", capture.tiers},
          {"quality",
           {{"lost", quality.lost},
            {"stacks", coverage_json(capture)},
            {"truncated_stacks", quality.truncated_stacks},
            {"broken_stacks", quality.broken_stacks},
            {"guessed_stacks", quality.guessed_stacks},
            {"complete_stacks", quality.complete_stacks},
            {"unmatched", quality.unmatched},
            {"calls", quality.calls},
            {"stacks_taken", quality.stacks_taken},
            {"events", quality.events},
            {"sampled_events", quality.sampled_events},
            {"pthread_slices", quality.pthread_slices},
            {"pthread_share", quality.pthread_share},
            {"self_cpu_share", quality.self_cpu_share},
            {"sufficient", diagnosis.sufficient}}}};
}

json processes_json(const Diagnosis& diagnosis) {
  const Capture& capture = diagnosis.capture.capture;
  json processes = json::array();
  for (size_t i = 0; i < capture.processes.size(); i++) {
    const Process& process = capture.processes[i];
    const ProcessTotals& totals = diagnosis.view.totals[i];
    if (is_empty_namesake(diagnosis, i)) continue;
    processes.push_back({{"pid", process.pid},
                         {"comm", process.comm},
                         {"exe", process.exe},
                         {"language", process.language},
                         {"threads", process.threads},
                         {"lock_wait_ns", totals.lock_wait_ns},
                         {"idle_wait_ns", totals.idle_wait_ns},
                         {"blame_ns", totals.blame_ns}});
  }
  return processes;
}

std::string to_text(const json& document) {
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string diagnosis_json(const Diagnosis& diagnosis) {
  json document;
  document["schema"] = "lockscope.diagnosis/1";
  document["capture"] = capture_json(diagnosis);
  document["processes"] = processes_json(diagnosis);
  document["findings"] = json::array();
  for (const Finding& finding : diagnosis.findings) {
    document["findings"].push_back(finding_json(diagnosis, finding));
  }
  return to_text(document);
}

}  // namespace lockscope
