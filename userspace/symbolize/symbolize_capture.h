#pragma once

#include "capture/capture.h"
#include "symbolize/symbolizer.h"

namespace lockscope {

/// Names every stack of a capture, and the variables that static locks are.
SymbolizedCapture symbolize(Capture capture, Symbolizer& symbolizer);

}  // namespace lockscope
