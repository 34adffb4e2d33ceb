#include "capture/stack_coverage.h"

#include <gtest/gtest.h>

#include "capture_builder.h"

namespace lockscope {
namespace {

class Coverage : public ::testing::Test {
 protected:
  Index stack(uint32_t flags) {
    const Index index = made_.stack(process_, {"wait", "main"});
    made_.capture().stacks[index].flags = flags;
    return index;
  }
  std::string why(uint32_t flags) {
    const char* text = why_incomplete(made_.capture(), stack(flags));
    return text ? text : "whole";
  }

  CaptureBuilder made_;
  Index process_ = made_.process(77, "app");
};

TEST_F(Coverage, WhatWentWrongFirst) {
  EXPECT_EQ(why(LS_UNWIND_COMPLETE), "whole");
  EXPECT_EQ(why(LS_UNWIND_COMPLETE | LS_UNWIND_NO_TABLE | LS_UNWIND_FP_GUESS), "code not known yet");
  EXPECT_EQ(why(LS_UNWIND_COMPLETE | LS_UNWIND_FP_GUESS), "code without unwind information");
  EXPECT_EQ(why(LS_UNWIND_FP_GUESS | LS_UNWIND_BROKEN | LS_UNWIND_BAD_ADDRESS),
            "code without unwind information");
  EXPECT_EQ(why(LS_UNWIND_TRUNCATED), "deeper than is kept");
  EXPECT_EQ(why(LS_UNWIND_BROKEN | LS_UNWIND_BAD_RULE), "unwind rule not supported");
  EXPECT_EQ(why(LS_UNWIND_BROKEN | LS_UNWIND_READ_FAULT), "stack memory not readable");
  EXPECT_EQ(why(LS_UNWIND_BROKEN | LS_UNWIND_BAD_ADDRESS), "implausible address");
  EXPECT_EQ(why(LS_UNWIND_BUSY), "walker busy");
  EXPECT_EQ(why(0), "broken off");
  EXPECT_STREQ(why_incomplete(made_.capture(), kNone), "not taken");
}

TEST_F(Coverage, OfEverythingThatWasSeen) {
  made_.lock(process_, 0x1000);
  const Index whole = stack(LS_UNWIND_COMPLETE), cut = stack(LS_UNWIND_TRUNCATED);
  made_.waits(0, whole, 10, 100);
  WaitRow& row = made_.waits(0, cut, 2, 50);
  row.in_flight = 1;
  row.in_flight_ns = 900;
  made_.waits(0, kNone, 1, 7);
  made_.releases(0, whole, 5, 60);
  made_.releases(0, cut, 6, 70);
  made_.releases(0, kNone, 100, 80);
  const StackCoverage coverage = stack_coverage(made_.capture());
  EXPECT_EQ(coverage.whole.stacks, 1u);
  EXPECT_EQ(coverage.whole.waits, 10u);
  EXPECT_EQ(coverage.whole.wait_ns, 1000u);
  EXPECT_EQ(coverage.whole.releases, 5u);
  ASSERT_EQ(coverage.incomplete.size(), 2u);
  const auto& deep = coverage.incomplete.at("deeper than is kept");
  EXPECT_EQ(deep.stacks, 1u);
  EXPECT_EQ(deep.waits, 3u);
  EXPECT_EQ(deep.wait_ns, 1000u);
  EXPECT_EQ(deep.releases, 6u);
  EXPECT_EQ(coverage.incomplete.at("not taken").waits, 1u);
  EXPECT_EQ(coverage.all.stacks, 2u);
  EXPECT_EQ(coverage.all.waits, 14u);
  EXPECT_EQ(coverage.all.wait_ns, 2007u);
  EXPECT_EQ(coverage.all.releases, 11u) << "not those that nobody was seen to make";
}

}  // namespace
}  // namespace lockscope
