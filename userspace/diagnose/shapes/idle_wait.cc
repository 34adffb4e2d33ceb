#include <fmt/format.h>

#include "diagnose/shapes/shape.h"
#include "text/format.h"

// Nothing is wrong: threads wait for work, for time or for another's end, and
// nobody holds what they wait for.

namespace lockscope {
namespace {

const char* waits_for(Primitive primitive) {
  switch (primitive) {
    case Primitive::Cond: return "a condition to be signalled";
    case Primitive::Sem: return "a semaphore that other threads post";
    case Primitive::Barrier: return "the other threads to arrive";
    case Primitive::Join: return "a thread's end";
    case Primitive::Park: return "their runtime to find them work";
    case Primitive::Latch: return "a value to change";
    default: return "another thread to wake them";
  }
}

// How well the primitive is known decides: nothing else would make a wait
// without a holder a bug at this tier.
double confidence_in(const Site& site) {
  if (site.primitive == Primitive::Unknown) {
    // No name. All ended by timeout: a sleep. Else some hand-made waiting.
    return site.wait.count > 0 && site.timeouts == site.sleeps ? 0.8 : 0.6;
  }
  return 0.9;
}

}  // namespace

std::optional<Finding> detect_idle_wait(const ShapeContext& context) {
  const Site& site = context.site;
  if (site.is_lock) return {};
  Finding finding;
  finding.shape = "idle-wait";
  finding.catalogue = 12;
  finding.verdict = Verdict::Healthy;
  finding.confidence = confidence_in(site);
  finding.evidence.push_back(fmt::format(
      "{} of waiting for {}: {} waits ended, {} still asleep; nobody holds anything meanwhile",
      format_ns(static_cast<double>(site.wait_ns())), waits_for(site.primitive),
      format_count(site.wait.count), format_count(site.in_flight)));
  if (site.timeouts > 0) {
    finding.evidence.push_back(fmt::format("{} of {} sleeps ended by their own timeout",
                                           format_count(site.timeouts),
                                           format_count(site.sleeps)));
  }
  finding.fix = "None needed.";
  return finding;
}

}  // namespace lockscope
