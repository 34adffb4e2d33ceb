#include "symbolize/demangle.h"

#include <gtest/gtest.h>

#include <ctime>
#include <string>

namespace lockscope {
namespace {

TEST(Demangle, Cplusplus) {
  EXPECT_EQ(demangle("_ZNSt5mutex4lockEv"), "std::mutex::lock");
  EXPECT_EQ(demangle("_ZNSt6vectorIiSaIiEE9push_backERKi"),
            "std::vector<int, std::allocator<int> >::push_back");
  EXPECT_EQ(demangle("_ZN1AC2Ev"), "A::A");
  EXPECT_EQ(demangle("_ZN1AD0Ev"), "A::~A");
  EXPECT_EQ(demangle("_ZNK3$_0clEv"), "$_0::operator()");
  EXPECT_EQ(demangle("_ZZ4mainENKUlvE_clEv"), "main::{lambda()#1}::operator()");
  EXPECT_EQ(demangle("_ZN12_GLOBAL__N_13fooEv"), "(anonymous namespace)::foo");
  EXPECT_EQ(demangle("_Z3addIiET_S0_S0_"), "add<int>");
}

TEST(Demangle, RustLegacyWithoutHash) {
  EXPECT_EQ(demangle("_ZN3std4sync5mutex14Mutex$LT$T$GT$4lock17h8a3b1e5c7d9f0246E"),
            "std::sync::mutex::Mutex<T>::lock");
  EXPECT_EQ(demangle("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"),
            "core::fmt::Write::write_fmt");
}

TEST(Demangle, RustV0) {
  EXPECT_EQ(demangle("_RNvNtCs1234_7mycrate3foo3bar"), "mycrate::foo::bar");
  EXPECT_EQ(demangle("_RNvMNtCs1234_7mycrate3fooNtB2_3Bar3baz"), "<mycrate::foo::Bar>::baz");
  EXPECT_EQ(demangle("_RNqCs4fqI2P2rA04_11utf8_identsu30____7hkackfecea1cbdathfdh9hlq6y"),
            "utf8_idents::საჭმელად_გემრიელი_სადილი");
}

TEST(Demangle, OtherNamesPass) {
  EXPECT_EQ(demangle("pthread_mutex_lock"), "pthread_mutex_lock");
  EXPECT_EQ(demangle("main.(*Cache).Get"), "main.(*Cache).Get");
  EXPECT_EQ(demangle("sync.(*Pool).Get·dwrap·1"), "sync.(*Pool).Get·dwrap·1");
  EXPECT_EQ(demangle("_Zebra"), "_Zebra");
  EXPECT_EQ(demangle("_ZN"), "_ZN");
  EXPECT_EQ(demangle(""), "");
}

TEST(Demangle, HostileNamesEndSoon) {
  const std::clock_t start = std::clock();
  // Each level doubles what it refers to: 2^60 and more if written out.
  std::string types = "_Z1f1AIiiE";
  for (int i = 0; i < 60; ++i) {
    const char digit = static_cast<char>(i < 11 ? '0' + i - 1 : 'A' + i - 11);
    const std::string back = i == 0 ? "S_" : std::string("S") + digit + "_";
    types += "S_I" + back + back + "E";
  }
  // Read in two ways at each level.
  std::string conversions = "_ZN1a";
  std::string spread = "_ZN1a";
  std::string one_conversion = "_ZN1acvT_I";
  for (int i = 0; i < 60; ++i) {
    conversions += "cvT_I";
    spread += "cvT_IN1b";
    one_conversion += "PKT0_I";
  }
  for (const std::string& name :
       {types, conversions, spread, one_conversion, "_Z1f" + std::string(4000, 'P'),
        "_Z" + std::string(4000, 'N'), "_R" + std::string(4000, 'N'),
        "_RNv" + std::string(4000, 'B'), "_Z1f" + std::string(3000, 'P') + "i"}) {
    EXPECT_LE(demangle(name).size(), (16u << 10) + 3) << name;
  }
  std::string rust = "_RIC1aTT";
  for (int i = 0; i < 50; ++i) rust += "TB7_B7_E";
  EXPECT_LE(demangle(rust + "EE").size(), (16u << 10) + 3);
  EXPECT_LT(std::clock() - start, 2 * CLOCKS_PER_SEC);
}

TEST(Demangle, ConversionOperators) {
  EXPECT_EQ(demangle("_ZN1AcvT_IiEEv"), "A::operator int<int>");
  EXPECT_EQ(demangle("_ZNK7wrappercvPKcEv"), "wrapper::operator char const*");
}

TEST(Demangle, LongNamesStayMangledAndAreCut) {
  const std::string name = "_ZN3foo" + std::to_string(5000) + std::string(5000, 'x') + "Ev";
  EXPECT_EQ(demangle(name), name.substr(0, 4096) + "...");
}

TEST(Sanitize, ControlCharactersAndBrokenUtf8) {
  EXPECT_EQ(sanitize("plain name"), "plain name");
  EXPECT_EQ(sanitize("\x1b[31mred\n\t\x7f"), "?[31mred???");
  EXPECT_EQ(sanitize("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x94\x92"),
            "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x94\x92");
  EXPECT_EQ(sanitize("\xff\xc3"), "??");
  EXPECT_EQ(sanitize("\xc0\x80"), "??") << "overlong";
  EXPECT_EQ(sanitize("\xed\xa0\x80"), "???") << "surrogate";
  EXPECT_EQ(sanitize("\xf4\x90\x80\x80"), "????") << "beyond Unicode";
  EXPECT_EQ(sanitize("\xc2\x9b"), "?") << "C1 control: CSI";
  EXPECT_EQ(sanitize("a\xe2\x80\xae z"), "a? z") << "right-to-left override";
  EXPECT_EQ(sanitize(std::string("a\0b", 3)), "a?b");
}

}  // namespace
}  // namespace lockscope
