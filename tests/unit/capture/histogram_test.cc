#include "capture/histogram.h"

#include <gtest/gtest.h>

namespace lockscope {
namespace {

constexpr uint64_t kNoMax = UINT64_MAX;

TEST(Histogram, EmptyHasNoPercentiles) {
  const Histogram none;
  EXPECT_EQ(none.count(), 0u);
  EXPECT_EQ(none.percentile(0.5, kNoMax), 0u);
  EXPECT_EQ(none.percentile(1, 1234), 0u);
}

// Slot 10 is 1024..2047; ten values lie 102.4 apart.
TEST(Histogram, StraightBetweenTheBoundsOfASlot) {
  Histogram histogram;
  histogram.slots[10] = 10;
  EXPECT_EQ(histogram.percentile(0, kNoMax), 1024u);
  EXPECT_EQ(histogram.percentile(0.1, kNoMax), 1126u);
  EXPECT_EQ(histogram.percentile(0.5, kNoMax), 1536u);
  EXPECT_EQ(histogram.percentile(1, kNoMax), 2048u);
}

TEST(Histogram, NeverAboveTheMaximumSeen) {
  Histogram histogram;
  histogram.slots[10] = 10;
  EXPECT_EQ(histogram.percentile(0.99, 1100), 1100u);
  EXPECT_EQ(histogram.percentile(0.5, 1536), 1536u);
  EXPECT_EQ(histogram.percentile(0.5, 1537), 1536u);
}

TEST(Histogram, FindsTheSlotAcrossGaps) {
  Histogram histogram;
  histogram.slots[4] = 98;   // 16..31
  histogram.slots[20] = 1;   // 1..2 ms
  histogram.slots[30] = 1;   // 1..2 s
  EXPECT_EQ(histogram.count(), 100u);
  EXPECT_EQ(histogram.percentile(0.49, kNoMax), 24u);
  EXPECT_EQ(histogram.percentile(0.98, kNoMax), 32u);
  EXPECT_EQ(histogram.percentile(0.985, kNoMax), (1u << 20) + (1u << 19));
  EXPECT_EQ(histogram.percentile(0.99, kNoMax), 2u << 20);
  EXPECT_EQ(histogram.percentile(1, 1500000000), 1500000000u);
}

TEST(Histogram, FirstAndLastSlot) {
  Histogram first;
  first.slots[0] = 2;
  EXPECT_EQ(first.percentile(0.5, kNoMax), 1u);
  Histogram last;
  last.slots[LS_HIST_SLOTS - 1] = 1;
  EXPECT_EQ(last.percentile(0.5, kNoMax), (1ull << 39) + (1ull << 38));
  EXPECT_EQ(last.percentile(1, 1ull << 39), 1ull << 39);
}

TEST(Histogram, AddsSlotBySlot) {
  Histogram a, b;
  for (size_t i = 0; i < a.slots.size(); i++) {
    a.slots[i] = i;
    b.slots[i] = 1000 * i;
  }
  a.add(b);
  for (size_t i = 0; i < a.slots.size(); i++) EXPECT_EQ(a.slots[i], 1001 * i);
  EXPECT_EQ(a.count(), 1001u * (39 * 40 / 2));
}

}  // namespace
}  // namespace lockscope
