#include "text/format.h"

#include <gtest/gtest.h>

#include <string>

namespace lockscope {
namespace {

TEST(FormatNs, ThreeSignificantDigitsInTheUnitThatFits) {
  EXPECT_EQ(format_ns(0), "0");
  EXPECT_EQ(format_ns(1), "1 ns");
  EXPECT_EQ(format_ns(734), "734 ns");
  EXPECT_EQ(format_ns(999), "999 ns");
  EXPECT_EQ(format_ns(1000), "1.00 µs");
  EXPECT_EQ(format_ns(9990), "9.99 µs");
  EXPECT_EQ(format_ns(9996), "10.0 µs");
  EXPECT_EQ(format_ns(20100000), "20.1 ms");
  EXPECT_EQ(format_ns(99960), "100 µs");
  EXPECT_EQ(format_ns(412e3), "412 µs");
  EXPECT_EQ(format_ns(3.42e9), "3.42 s");
  EXPECT_EQ(format_ns(86400e9), "86400 s");
}

TEST(FormatNs, KeepsTheSign) {
  EXPECT_EQ(format_ns(-1600), "-1.60 µs");
  EXPECT_EQ(format_ns(-16), "-16 ns");
}

TEST(FormatCount, GroupsDigitsByThree) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(123456), "123,456");
  EXPECT_EQ(format_count(1234567), "1,234,567");
  EXPECT_EQ(format_count(UINT64_MAX), "18,446,744,073,709,551,615");
}

TEST(FormatPercent, FewerDecimalsWhereTheyTellLess) {
  EXPECT_EQ(format_percent(0), "0.00 %");
  EXPECT_EQ(format_percent(0.00123), "0.12 %");
  EXPECT_EQ(format_percent(0.0123), "1.2 %");
  EXPECT_EQ(format_percent(0.099), "9.9 %");
  EXPECT_EQ(format_percent(0.123), "12 %");
  EXPECT_EQ(format_percent(1), "100 %");
}

TEST(Printable, PassesTextOfAnyLanguage) {
  EXPECT_EQ(printable(""), "");
  EXPECT_EQ(printable("std::map<int, int>"), "std::map<int, int>");
  EXPECT_EQ(printable("µs · საჭმელად 漢字 😀"), "µs · საჭმელად 漢字 😀");
}

TEST(Printable, ReplacesWhatATerminalWouldObey) {
  EXPECT_EQ(printable("\x1b[31mred\x07"), "?[31mred?");
  EXPECT_EQ(printable("a\tb\nc\rd\x7f"), "a?b?c?d?");
  EXPECT_EQ(printable(std::string("a\0b", 3)), "a?b");
  // CSI as one C1 control character, U+009B; U+00A0 is none.
  EXPECT_EQ(printable("\xc2\x9b" "2J"), "?2J");
  EXPECT_EQ(printable("\xc2\x80"), "?");
  EXPECT_EQ(printable("\xc2\xa0"), "\xc2\xa0");
}

TEST(Printable, ReplacesEachByteThatIsNotUtf8) {
  EXPECT_EQ(printable("\x9b" "2J"), "?2J");        // C1 of an 8-bit terminal
  EXPECT_EQ(printable("\xff\xfe"), "??");
  EXPECT_EQ(printable("\xc0\x9b"), "??");          // ESC, overlong
  EXPECT_EQ(printable("caf\xc3"), "caf?");         // cut short
  EXPECT_EQ(printable("\xe6\xbc" "x"), "??x");     // ... in the middle
  EXPECT_EQ(printable("\xf8\x88\x80\x80\x80"), "?????");
}

}  // namespace
}  // namespace lockscope
