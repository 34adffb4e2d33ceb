#include "symbolize/symbolize_census.h"

#include <utility>

#include "symbolize/symbolize_capture.h"

namespace lockscope {

SymbolizedCensus symbolize(Census census, Symbolizer& symbolizer) {
  return {.named = symbolize(std::move(census.capture), symbolizer),
          .threads = std::move(census.threads),
          .looks = census.looks};
}

}  // namespace lockscope
