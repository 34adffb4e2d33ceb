#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "record/target.h"

namespace lockscope {

inline constexpr const char* kVersion = "lockscope 0.1.0";

/// What the command line asks for.
struct Request {
  Target target;
  std::optional<double> seconds;
  uint32_t stack_rate = kDefaultStackRate;
  std::vector<std::string> tiers;  ///< "futex", "pthread", "holder"; none: the default
  std::optional<double> budget_percent;  ///< what probes may cost; none: the default
  std::string output = "-";
  std::string format;  ///< empty: the command's default
  std::string sort = "wait";
  std::string metric = "wait";

  bool wants_tier(const char* tier) const {
    return std::find(tiers.begin(), tiers.end(), tier) != tiers.end();
  }
};

Status run_diagnose(const Request& request);
Status run_record(const Request& request);
Status run_report(const Request& request);
Status run_flame(const Request& request);
Status run_threads(const Request& request);

/// Prints what works; returns 0, or 77 when recording can't work here.
int run_doctor();
/// Where uprobes would be placed in a file, and why there.
int run_doctor_probes(const std::string& path, const std::string& format);

}  // namespace lockscope
