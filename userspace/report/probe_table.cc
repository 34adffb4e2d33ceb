#include "report/probe_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace lockscope {

std::string probe_table_text(const ProbePlan& plan) {
  size_t name = 8, code = 11;
  for (const ProbeSite& site : plan.sites) {
    name = std::max(name, site.function.size());
    code = std::max(code, site.instruction.size());
  }
  for (const UnprobedFunction& function : plan.unprobed) {
    name = std::max(name, function.function.size());
  }
  std::string text = fmt::format("libc: {}\n\n", to_string(plan.libc));
  text += fmt::format("{:<{}}  {:<7} {:<{}}  {:<8}  {}\n", "FUNCTION", name, "SITE", "INSTRUCTION",
                      code, "KERNEL", "WHY THERE");
  for (const ProbeSite& site : plan.sites) {
    text += fmt::format("{:<{}}  {:<7} {:<{}}  {:<8}  {}\n", site.function, name,
                        fmt::format("+{:#x}", site.address - site.function_address),
                        site.instruction, code, site.emulated ? "emulates" : "steps", site.reason);
  }
  if (!plan.unprobed.empty()) text += "\nnot probed:\n";
  for (const UnprobedFunction& function : plan.unprobed) {
    text += fmt::format("{:<{}}  {}\n", function.function, name, function.reason);
  }
  return text;
}

std::string probe_table_json(const ProbePlan& plan) {
  nlohmann::json document;
  document["schema"] = "lockscope.probes/1";
  document["libc"] = to_string(plan.libc);
  document["sites"] = nlohmann::json::array();
  for (const ProbeSite& site : plan.sites) {
    document["sites"].push_back({{"function", site.function},
                                 {"function_address", site.function_address},
                                 {"address", site.address},
                                 {"file_offset", site.file_offset},
                                 {"instruction", site.instruction},
                                 {"emulated", site.emulated},
                                 {"outcome_in_zero_flag", site.outcome_in_zero_flag},
                                 {"reason", site.reason}});
  }
  document["unprobed"] = nlohmann::json::array();
  for (const UnprobedFunction& function : plan.unprobed) {
    document["unprobed"].push_back({{"function", function.function}, {"reason", function.reason}});
  }
  return document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace lockscope
