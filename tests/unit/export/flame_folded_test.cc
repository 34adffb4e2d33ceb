#include <gtest/gtest.h>

#include <limits>

#include "export/flame.h"

namespace lockscope {
namespace {

std::string folded(std::vector<FlameStack> stacks) {
  FlameGraph graph;
  graph.unit = "ns";
  graph.stacks = std::move(stacks);
  return render_folded(graph);
}

TEST(FlameFolded, OneLineAStackSorted) {
  EXPECT_EQ(folded({{{"main", "work", "lock"}, 30, 3}, {{"main", "idle"}, 12, 1}}),
            "main;idle 12\nmain;work;lock 30\n");
}

TEST(FlameFolded, MergesEqualStacks) {
  EXPECT_EQ(folded({{{"a", "b"}, 1}, {{"a"}, 10}, {{"a", "b"}, 2}}), "a 10\na;b 3\n");
}

TEST(FlameFolded, MergesStacksThatBecomeEqual) {
  EXPECT_EQ(folded({{{"a;b"}, 1}, {{"a:b"}, 2}}), "a:b 3\n");
}

TEST(FlameFolded, NothingIsNothing) {
  EXPECT_EQ(folded({}), "");
  EXPECT_EQ(folded({{{"a"}, 0, 5}}), "");
}

TEST(FlameFolded, StackWithoutFramesOrNamesIsParseable) {
  EXPECT_EQ(folded({{{}, 4}}), "[no stack] 4\n");
  EXPECT_EQ(folded({{{"a", "", " \t "}, 4}}), "a;[unnamed];[unnamed] 4\n");
}

TEST(FlameFolded, HostileNamesStayOnOneLineInOneFrame) {
  EXPECT_EQ(folded({{{"a;b", "c\nd\r\ne", "\x1b[31m\x7f"}, 5}}),
            "a:b;c d  e;\xEF\xBF\xBD[31m\xEF\xBF\xBD 5\n");
  EXPECT_EQ(folded({{{"<script>alert(\"1\")</script>", "]]>"}, 5}}),
            "<script>alert(\"1\")</script>;]]> 5\n");
}

TEST(FlameFolded, NameEndingInANumberIsNotReadAsAValue) {
  EXPECT_EQ(folded({{{"main", "worker 3"}, 120}}), "main;worker_3 120\n");
  EXPECT_EQ(folded({{{"worker 1.5", "lock"}, 7}}), "worker_1.5;lock 7\n");
  EXPECT_EQ(folded({{{"operator new[] (3)"}, 7}}), "operator new[] (3) 7\n");
}

TEST(FlameFolded, InvalidUtf8IsReplaced) {
  EXPECT_EQ(folded({{{"x\xff\xc0\x80y"}, 1}}), "x\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDy 1\n");
  EXPECT_EQ(folded({{{"\u65e5\u672c"}, 1}}), "\u65e5\u672c 1\n");
}

TEST(FlameFolded, SumsSaturate) {
  const uint64_t max = std::numeric_limits<uint64_t>::max();
  EXPECT_EQ(folded({{{"a"}, max}, {{"a"}, 2}}), "a 18446744073709551615\n");
}

}  // namespace
}  // namespace lockscope
