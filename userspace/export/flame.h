#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockscope {

/// One call stack and what was measured on it.
struct FlameStack {
  /// Outermost first. A name may end with " [module]", which only decides its
  /// colour. Names come from the traced process: any bytes are allowed.
  std::vector<std::string> frames;
  uint64_t value = 0;  ///< the width, in FlameGraph::unit
  uint64_t count = 0;  ///< events behind the value; 0 when not known
};

/// What the graph measures: each has its own colours, so that two graphs side
/// by side are not confused.
enum class FlamePalette {
  Wait = 0,   ///< blue: time lost waiting, by waiter
  Blame = 1,  ///< red and orange: time others lost, by holder
  Hold = 2,   ///< green: time locks were held
  Idle = 3,   ///< grey: waiting that is not contention
};

/// Everything a flame graph shows.
struct FlameGraph {
  std::string title;
  std::string subtitle;
  std::string unit;  ///< "ns" or "count"
  std::vector<FlameStack> stacks;
  std::vector<std::string> notes;  ///< data quality, one paragraph each
  FlamePalette palette = FlamePalette::Wait;
};

/// "a;b;c VALUE" lines as read by flamegraph.pl, inferno and speedscope:
/// identical stacks merged, sorted by bytes, stacks of value 0 left out. What
/// these readers would misparse is replaced, so names may differ from the
/// input: ';' becomes ':', a control character U+FFFD or a space.
std::string render_folded(const FlameGraph& graph);

/// One interactive SVG file that needs nothing else: no network, no fonts, no
/// script to be readable. Frames too narrow to see are left out, and a note
/// says how many and how much they were.
std::string render_svg(const FlameGraph& graph);

}  // namespace lockscope
