#include "unwind/jit_code.h"

#include <gtest/gtest.h>

#include <string>

namespace lockscope {
namespace {

using namespace std::string_literals;

TEST(JitCode, JvmKeepsFramePointersWhenToldTo) {
  EXPECT_TRUE(jvm_keeps_frame_pointers("java\0-XX:+PreserveFramePointer\0Main\0"s, ""));
  EXPECT_FALSE(jvm_keeps_frame_pointers("java\0Main\0"s, "PATH=/bin\0"s));
  EXPECT_FALSE(jvm_keeps_frame_pointers("", ""));
}

TEST(JitCode, TheLastOptionDecides) {
  const std::string on = "-XX:+PreserveFramePointer", off = "-XX:-PreserveFramePointer";
  EXPECT_FALSE(jvm_keeps_frame_pointers(on + '\0' + off + '\0', ""));
  EXPECT_TRUE(jvm_keeps_frame_pointers(off + '\0' + on + '\0', ""));
  EXPECT_TRUE(jvm_keeps_frame_pointers("", "A=1\0JAVA_TOOL_OPTIONS=-Xmx1g "s + on + '\0'));
  EXPECT_FALSE(jvm_keeps_frame_pointers(off, "JDK_JAVA_OPTIONS=" + on));
  EXPECT_TRUE(jvm_keeps_frame_pointers(off, "_JAVA_OPTIONS=" + on));
  EXPECT_FALSE(jvm_keeps_frame_pointers("", "MY_JAVA_TOOL_OPTIONS=" + on));
  EXPECT_FALSE(jvm_keeps_frame_pointers("", "JAVA_TOOL_OPTIONS2=" + on));
}

}  // namespace
}  // namespace lockscope
