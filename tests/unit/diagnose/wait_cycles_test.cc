#include "diagnose/wait_cycles.h"

#include <gtest/gtest.h>

namespace lockscope {
namespace {

using Threads = std::vector<Index>;

TEST(FindCycles, NoneWhereEveryChainEnds) {
  EXPECT_TRUE(find_cycles({}).empty());
  EXPECT_TRUE(find_cycles({1, 2, kNone, 2}).empty());
}

TEST(FindCycles, OneOfItself) {
  const auto cycles = find_cycles({kNone, 1});
  ASSERT_EQ(cycles.size(), 1u);
  EXPECT_EQ(cycles[0].threads, Threads{1});
  EXPECT_TRUE(cycles[0].behind.empty());
}

TEST(FindCycles, BeginsWithTheLowestAndFollowsTheWaiting) {
  const auto cycles = find_cycles({3, kNone, 0, 2});
  ASSERT_EQ(cycles.size(), 1u);
  EXPECT_EQ(cycles[0].threads, (Threads{0, 3, 2}));
}

TEST(FindCycles, ThoseBehindAtAnyDistance) {
  // 0 -> 1 -> 2 <-> 3, 4 -> 3, 5 alone, 6 <-> 7
  const auto cycles = find_cycles({1, 2, 3, 2, 3, kNone, 7, 6});
  ASSERT_EQ(cycles.size(), 2u);
  EXPECT_EQ(cycles[0].threads, (Threads{2, 3}));
  EXPECT_EQ(cycles[0].behind, (Threads{0, 1, 4}));
  EXPECT_EQ(cycles[1].threads, (Threads{6, 7}));
  EXPECT_TRUE(cycles[1].behind.empty());
}

}  // namespace
}  // namespace lockscope
