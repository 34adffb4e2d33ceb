#include "export/text.h"

#include <gtest/gtest.h>

#include <limits>

namespace lockscope {
namespace {

TEST(CleanText, KeepsValidText) {
  EXPECT_EQ(clean_text("std::map<int, \u00e9\u65e5\U0001F512>"),
            "std::map<int, \u00e9\u65e5\U0001F512>");
}

TEST(CleanText, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(clean_text("\xC3"), "\uFFFD") << "cut short";
  EXPECT_EQ(clean_text("\xC0\x80"), "\uFFFD\uFFFD") << "overlong";
  EXPECT_EQ(clean_text("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD") << "surrogate";
  EXPECT_EQ(clean_text("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD") << "above U+10FFFF";
}

TEST(CleanText, ReplacesControlAndReorderingCharacters) {
  EXPECT_EQ(clean_text(std::string_view("a\0b", 3)), "a\uFFFDb");
  EXPECT_EQ(clean_text("a\tb\r\nc"), "a b  c");
  EXPECT_EQ(clean_text("\xC2\x85\xE2\x80\xA8\xE2\x80\xAE\xEF\xBB\xBF"), "\uFFFD\uFFFD\uFFFD\uFFFD");
}

TEST(CleanText, CutsAtWholeCharacters) {
  EXPECT_EQ(clean_text("abcdefgh", 8), "abcdefgh");
  EXPECT_EQ(clean_text("abcdefghi", 8), "abcde\u2026");
  EXPECT_EQ(clean_text("ab\u65e5\u65e5\u65e5", 8), "ab\u65e5\u2026");
}

TEST(TruncateColumns, CountsWideCharactersTwice) {
  EXPECT_EQ(text_columns("ab\u65e5"), 4u);
  EXPECT_EQ(truncate_columns("abcdef", 6), "abcdef");
  EXPECT_EQ(truncate_columns("abcdefg", 6), "abcd..");
  EXPECT_EQ(truncate_columns("a\u65e5\u65e5\u65e5", 6), "a\u65e5..");
  EXPECT_EQ(truncate_columns("abc", 1), "");
}

TEST(HumanValue, TimeHasThreeDigits) {
  EXPECT_EQ(human_value(0, "ns"), "0 ns");
  EXPECT_EQ(human_value(999, "ns"), "999 ns");
  EXPECT_EQ(human_value(1'500, "ns"), "1.50 µs");
  EXPECT_EQ(human_value(12'345'678, "ns"), "12.3 ms");
  EXPECT_EQ(human_value(1'234'567'890, "ns"), "1.23 s");
  EXPECT_EQ(human_value(3'723'000'000'000, "ns"), "3723 s");
}

TEST(HumanValue, RoundingDoesNotLeaveTheUnit) {
  EXPECT_EQ(human_value(9'999, "ns"), "10.0 µs");
  EXPECT_EQ(human_value(99'970, "ns"), "100 µs");
  EXPECT_EQ(human_value(999'999, "ns"), "1.00 ms");
}

TEST(HumanValue, CountsAreGrouped) {
  EXPECT_EQ(human_value(999, "count"), "999");
  EXPECT_EQ(human_value(1'000, "count"), "1,000");
  EXPECT_EQ(human_count(std::numeric_limits<uint64_t>::max()), "18,446,744,073,709,551,615");
}

TEST(HumanPercent, OfNothingIsZero) {
  EXPECT_EQ(human_percent(1, 3), "33.33%");
  EXPECT_EQ(human_percent(0, 0), "0.00%");
}

}  // namespace
}  // namespace lockscope
