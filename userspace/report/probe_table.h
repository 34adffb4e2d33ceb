#pragma once

#include <string>

#include "uprobe/probe_plan.h"

namespace lockscope {

/// Where uprobes go in a file: function, site, instruction, why; and which
/// functions have none.
std::string probe_table_text(const ProbePlan& plan);
std::string probe_table_json(const ProbePlan& plan);

}  // namespace lockscope
