#include <fmt/format.h>

#include <algorithm>

#include "diagnose/shapes/shape.h"
#include "text/format.h"

// One lock around a tiny update, taken by every thread: handing it over costs
// far more than what it protects.

namespace lockscope {
namespace {

// A contended hold as the futex tier sees it begins when the waiter leaves the
// kernel, so it holds the way back to user space and one more round of the lock
// word: 1-3 µs on top of a critical section of nanoseconds. A hand-over through
// the kernel costs 5-50 µs. Holds of this length are below that.
constexpr double kTinyHoldNs = 10000;

// Hand-overs through the kernel each second from which on they cost whole
// percents of a core.
constexpr double kBusyPerSecond = 500;

// Less waiting than this share of one thread's time is not worth a word.
constexpr double kWorthwhileThreads = 0.05;

// Holds below which a median says little.
constexpr uint64_t kEnoughHolds = 50;

}  // namespace

std::optional<Finding> detect_tiny_global_lock(const ShapeContext& context) {
  const Site& site = context.site;
  if (!site.is_lock || site.primitive == Primitive::RuntimeLock) return {};
  if (site.hold.count < kEnoughHolds || site.waiters < 2) return {};
  const double hold_p50 =
      static_cast<double>(site.hold.histogram.percentile(0.5, site.hold.max_ns));
  const double per_second = static_cast<double>(site.wait.count) / context.seconds();
  if (hold_p50 > kTinyHoldNs || per_second < kBusyPerSecond ||
      context.threads_lost() < kWorthwhileThreads)
    return {};
  // Waiting that long holds explain is not this shape, even if most are tiny.
  if (static_cast<double>(site.hold.total_ns) > 0.5 * static_cast<double>(site.wait_ns()))
    return {};

  Finding finding;
  finding.shape = "tiny-global-lock";
  finding.catalogue = 1;
  finding.verdict = Verdict::Bug;
  // Surer the tinier the hold and the more threads meet; never quite sure
  // without samples from inside the lock path.
  finding.confidence = std::min(0.9, 0.6 + 0.15 * (1 - hold_p50 / kTinyHoldNs) +
                                         0.05 * std::min<uint32_t>(site.waiters, 4));
  finding.evidence.push_back(fmt::format(
      "held {} at the median{}, yet waited for {} times a second, {} each time on "
      "average, by {} threads",
      format_ns(hold_p50), site.which_holds(), format_count(static_cast<uint64_t>(per_second)),
      format_ns(static_cast<double>(site.wait.total_ns) /
                static_cast<double>(std::max<uint64_t>(site.wait.count, 1))),
      site.waiters));
  finding.evidence.push_back(
      fmt::format("{} of waiting in {:.1f} s: {:.2f} threads' worth of time goes into handing "
                  "over the lock, not into what it protects",
                  format_ns(static_cast<double>(site.wait_ns())), context.seconds(),
                  context.threads_lost()));
  finding.fix =
      "Replace the lock by an atomic update, or keep one instance per thread or shard and add "
      "them up when read.";
  return finding;
}

}  // namespace lockscope
