#pragma once

#include <string>
#include <vector>

#include "capture/capture.h"
#include "diagnose/sites.h"

namespace lockscope {

enum class Verdict { Bug, Healthy, Unknown };

/// The JSON name: "bug", "healthy", "unknown".
const char* to_string(Verdict verdict);

/// What was made of one site.
struct Finding {
  std::string shape;        ///< stable id, as in docs/shapes.md
  int catalogue = 0;        ///< number in the catalogue, 0 beyond it
  Verdict verdict = Verdict::Unknown;
  double confidence = 0;    ///< 0..1, in this verdict
  Index site = kNone;       ///< into Diagnosis::view.sites
  std::vector<std::string> evidence;  ///< sentences with numbers
  std::string fix;
};

/// Everything that reports are made of. Findings come worst first, by the time
/// lost.
struct Diagnosis {
  SymbolizedCapture capture;
  SiteView view;
  std::vector<Finding> findings;
  bool sufficient = true;         ///< the data bears verdicts
  std::vector<std::string> withheld;  ///< why not, if it does not
};

/// Puts a capture together by sites and names the shape of each. Pure.
Diagnosis diagnose(SymbolizedCapture capture);

}  // namespace lockscope
