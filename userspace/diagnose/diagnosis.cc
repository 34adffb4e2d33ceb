#include "diagnose/diagnosis.h"

#include <fmt/format.h>

#include <algorithm>

#include "diagnose/shapes/shape.h"
#include "text/format.h"

namespace lockscope {
namespace {

// Lost or broken beyond this share of the calls, the sums may mislead.
constexpr double kMaxLostShare = 0.01;

// Events whose loss takes time or identity out of the books (others cost
// detail only).
constexpr const char* kGraveLosses[] = {"lock_table_full", "thread_table_full", "exit_missed",
                                        "shared_key_unreadable"};

void judge_quality(Diagnosis& diagnosis) {
  const Quality& quality = diagnosis.capture.capture.quality;
  uint64_t grave = 0;
  for (const char* reason : kGraveLosses) {
    const auto found = quality.lost.find(reason);
    if (found != quality.lost.end()) grave += found->second;
  }
  if (static_cast<double>(grave) > kMaxLostShare * static_cast<double>(quality.calls)) {
    diagnosis.withheld.push_back(fmt::format("{} of {} futex calls could not be entered in the books",
                                             format_count(grave), format_count(quality.calls)));
  }
  diagnosis.sufficient = diagnosis.withheld.empty();
}

// What no shape explains: said as it is.
Finding unknown(const ShapeContext& context, const Diagnosis& diagnosis) {
  const Site& site = context.site;
  Finding finding;
  finding.shape = "unknown";
  finding.confidence = 0;
  finding.evidence.push_back(fmt::format(
      "{} of waiting in {:.1f} s by {} threads, {} waits, {} at worst",
      format_ns(static_cast<double>(site.wait_ns())), context.seconds(), site.waiters,
      format_count(site.wait.count + site.in_flight),
      format_ns(static_cast<double>(site.max_wait_ns()))));
  if (site.hold.count > 0) {
    finding.evidence.push_back(fmt::format(
        "held {} on average{}",
        format_ns(static_cast<double>(site.hold.total_ns) / static_cast<double>(site.hold.count)),
        site.which_holds()));
  }
  if (site.in_flight > 0 && site.owner_tid != 0) {
    finding.evidence.push_back(
        fmt::format("thread {} held it when the capture ended, {} waiting", site.owner_tid,
                    site.in_flight));
  }
  for (const std::string& reason : diagnosis.withheld) {
    finding.evidence.push_back("verdict withheld: " + reason);
  }
  finding.fix = "Look at the stacks of waiters and holders.";
  return finding;
}

Finding best_finding(const ShapeContext& context, const Diagnosis& diagnosis) {
  std::optional<Finding> best;
  if (diagnosis.sufficient) {
    for (const Shape shape : kShapes) {
      auto finding = shape(context);
      if (finding && (!best || finding->confidence > best->confidence)) best = std::move(finding);
    }
  }
  return best ? std::move(*best) : unknown(context, diagnosis);
}

uint64_t time_lost(const Finding& finding, const Diagnosis& diagnosis) {
  return finding.verdict == Verdict::Healthy ? 0 : diagnosis.view.sites[finding.site].wait_ns();
}

}  // namespace

const char* to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::Bug: return "bug";
    case Verdict::Healthy: return "healthy";
    case Verdict::Unknown: return "unknown";
  }
  return "unknown";
}

Diagnosis diagnose(SymbolizedCapture capture) {
  Diagnosis diagnosis;
  diagnosis.view = build_sites(capture);
  diagnosis.capture = std::move(capture);
  judge_quality(diagnosis);
  for (size_t i = 0; i < diagnosis.view.sites.size(); i++) {
    const Site& site = diagnosis.view.sites[i];
    if (site.wait.count + site.in_flight == 0) continue;
    Finding finding = best_finding({diagnosis.capture, diagnosis.view, site}, diagnosis);
    finding.site = static_cast<Index>(i);
    diagnosis.findings.push_back(std::move(finding));
  }
  // Sites are in the order of waiting: equal losses stay in it.
  std::stable_sort(diagnosis.findings.begin(), diagnosis.findings.end(),
                   [&](const Finding& a, const Finding& b) {
                     return time_lost(a, diagnosis) > time_lost(b, diagnosis);
                   });
  return diagnosis;
}

}  // namespace lockscope
