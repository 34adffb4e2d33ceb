#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/result.h"
#include "capture/capture.h"
#include "parse/sandboxed_parser.h"
#include "record/pthread_tier.h"
#include "record/raw_tables.h"
#include "record/target.h"
#include "symbolize/symbolizer.h"

namespace lockscope {

/// Of somebody who looks at a process for a while.
inline constexpr double kInteractiveBudget = 5;

struct RecordOptions {
  Target target;
  /// How long; none: until the command ends (10 s where there is none).
  std::optional<double> seconds;
  /// Stacks a second and CPU above which they are sampled; 0: all are taken.
  uint32_t stack_rate = kDefaultStackRate;
  /// Where uprobes are placed in libc: every acquisition is seen.
  PthreadScope pthread_tier = PthreadScope::Nowhere;
  /// What these may cost, of the CPU time of the processes that they are in, in percent.
  double budget_percent = kInteractiveBudget;
  /// Whether the scheduler is watched for what holders of contended locks do.
  bool holder_tier = false;
  /// The command's output goes to stderr: stdout is for the report.
  bool command_stdout_to_stderr = false;
  /// Called about five times a second with the time recorded so far, in s.
  std::function<void(double)> progress;
};

/// Records a live target: until the time is over, the target has ended, or
/// SIGINT or SIGTERM comes, which end it early without harm. The symbolizer is
/// shown every process while it lives; `parser` reads the files of all of them.
/// Errors: no such target (Failed), kernel or privileges (Unsupported).
Result<Capture> record(const RecordOptions& options, SandboxedParser& parser,
                       Symbolizer& symbolizer);

}  // namespace lockscope
