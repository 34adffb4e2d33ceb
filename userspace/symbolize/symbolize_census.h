#pragma once

#include "capture/census.h"
#include "symbolize/symbolizer.h"

namespace lockscope {

/// Names the functions of all stacks, and the variables that are waited on.
SymbolizedCensus symbolize(Census census, Symbolizer& symbolizer);

}  // namespace lockscope
