#pragma once

#include <string>
#include <string_view>

#include "export/flame.h"

namespace lockscope {

/// Where the code of a frame comes from, as far as its name tells.
enum class FrameKind {
  Program = 0,
  Library = 1,
  System = 2,  ///< C and C++ runtime, dynamic linker, vdso
  Kernel = 3,
  Generated = 4,   ///< JIT
  Unresolved = 5,  ///< no symbol
};
inline constexpr int kFrameKinds = 6;

/// The kind, from the trailing " [module]" of a frame or from the name alone.
FrameKind frame_kind(std::string_view frame);

/// How a legend calls the kind.
std::string_view frame_kind_label(FrameKind kind);

/// The plain colour of a kind, "#rrggbb": light enough for black text.
std::string kind_color(FlamePalette palette, FrameKind kind);

/// kind_color with a slight variation that only depends on the name, so that
/// neighbours can be told apart and a function looks the same everywhere.
std::string frame_color(FlamePalette palette, std::string_view frame);

}  // namespace lockscope
