#include "export/flame_color.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lockscope {
namespace {

TEST(FrameKind, FollowsTheModule) {
  EXPECT_EQ(frame_kind("main"), FrameKind::Program);
  EXPECT_EQ(frame_kind("main [server]"), FrameKind::Program);
  EXPECT_EQ(frame_kind("SSL_read [libssl.so.3]"), FrameKind::Library);
  EXPECT_EQ(frame_kind("pthread_mutex_lock [libc.so.6]"), FrameKind::System);
  EXPECT_EQ(frame_kind("clock_gettime [[vdso]]"), FrameKind::System);
  EXPECT_EQ(frame_kind("futex_wait [kernel]"), FrameKind::Kernel);
  EXPECT_EQ(frame_kind("nf_hook [nf_tables.ko]"), FrameKind::Kernel);
  EXPECT_EQ(frame_kind("LazyCompile:~f [jit]"), FrameKind::Generated);
}

TEST(FrameKind, FunctionWithoutSymbolIsUnresolved) {
  EXPECT_EQ(frame_kind("libfoo.so+0x1a2b"), FrameKind::Unresolved);
  EXPECT_EQ(frame_kind("libfoo.so+0x1a2b [libfoo.so]"), FrameKind::Unresolved);
  EXPECT_EQ(frame_kind("0x7f0012"), FrameKind::Unresolved);
  EXPECT_EQ(frame_kind("[unknown]"), FrameKind::Unresolved);
}

TEST(FrameKind, BracketsOfTheNameAreNotAModule) {
  EXPECT_EQ(frame_kind("operator new[]"), FrameKind::Program);
  EXPECT_EQ(frame_kind("f() [clone .cold] [libc.so.6]"), FrameKind::System);
  EXPECT_EQ(frame_kind(""), FrameKind::Program);
}

double luminance(const std::string& hex) {  // WCAG 2.1
  const auto channel = [&](size_t at) {
    const double c = std::stoi(hex.substr(at, 2), nullptr, 16) / 255.0;
    return c <= 0.03928 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
  };
  return 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
}

TEST(FrameColor, BlackTextIsReadableOnEveryColour) {
  for (int palette = 0; palette < 4; ++palette) {
    for (const char* module :
         {"", " [x]", " [x.so]", " [libc.so.6]", " [kernel]", " [jit]", "+0x1"}) {
      for (int i = 0; i < 300; ++i) {
        const std::string color =
            frame_color(static_cast<FlamePalette>(palette), "f" + std::to_string(i) + module);
        EXPECT_GE((luminance(color) + 0.05) / 0.05, 7.0) << color << " for " << module;
      }
    }
  }
}

TEST(FrameColor, DependsOnlyOnTheName) {
  EXPECT_EQ(frame_color(FlamePalette::Wait, "f [a]"), frame_color(FlamePalette::Wait, "f [a]"));
  EXPECT_EQ(frame_color(FlamePalette::Wait, "f [a]"), frame_color(FlamePalette::Wait, "f"));
  EXPECT_NE(frame_color(FlamePalette::Wait, "f"), frame_color(FlamePalette::Hold, "f"));
}

}  // namespace
}  // namespace lockscope
