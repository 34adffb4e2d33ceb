#include <fmt/format.h>

#include <algorithm>

#include "diagnose/shapes/shape.h"
#include "text/format.h"

// The critical section takes long, and the others wait for it. Whether the
// holder computes or blocks meanwhile the futex tier does not see.

namespace lockscope {
namespace {

// A millisecond is a request's whole latency budget in many services, and a
// thousand times what a critical section should need.
constexpr double kLongHoldNs = 1e6;

// Below this share of one thread's time nobody suffers.
constexpr double kWorthwhileThreads = 0.05;

// One long hold may be a start-up; a few are a habit.
constexpr uint64_t kEnoughHolds = 3;

}  // namespace

std::optional<Finding> detect_long_hold(const ShapeContext& context) {
  const Site& site = context.site;
  if (!site.is_lock || site.hold.count < kEnoughHolds) return {};
  const double mean =
      static_cast<double>(site.hold.total_ns) / static_cast<double>(site.hold.count);
  if (mean < kLongHoldNs || context.threads_lost() < kWorthwhileThreads) return {};

  Finding finding;
  finding.shape = "long-hold";
  finding.verdict = Verdict::Bug;
  finding.confidence = mean >= 10 * kLongHoldNs ? 0.85 : 0.75;
  finding.evidence.push_back(fmt::format(
      "held {} on average (at most {}), {} times{}",
      format_ns(mean), format_ns(static_cast<double>(site.hold.max_ns)),
      format_count(site.hold.count), site.which_holds()));
  finding.evidence.push_back(fmt::format(
      "{} of waiting in {:.1f} s by {} threads, {} at worst", format_ns(static_cast<double>(site.wait_ns())),
      context.seconds(), site.waiters, format_ns(static_cast<double>(site.max_wait_ns()))));
  if (site.primitive == Primitive::Sem) {
    // A semaphore may admit several; then long tenure is its purpose.
    finding.confidence -= 0.2;
    finding.evidence.push_back("it is a semaphore used as a lock, as far as its users tell");
  }
  finding.fix =
      "Take out of the critical section what does not need the lock: compute on a copy and swap "
      "it in, do I/O before or after, or split the lock.";
  return finding;
}

}  // namespace lockscope
