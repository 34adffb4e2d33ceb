// Functions written by hand, an instruction a line, at 0x1000.
#include "uprobe/site_finder.h"

#include <gtest/gtest.h>

namespace lockscope {
namespace {

constexpr uint64_t kEntry = 0x1000;
constexpr uint8_t kFirst = 1, kFirstTwo = 3;

Result<FoundSite> find(const std::string& bytes, uint8_t arguments = kFirst) {
  Code code;
  code.add(kEntry, bytes);
  return find_site(code, {kEntry, bytes.size()}, arguments);
}

std::string bytes(std::initializer_list<const char*> instructions) {
  std::string all;
  for (const char* hex : instructions) {
    for (const char* p = hex; *p != '\0'; p += 2) {
      all += static_cast<char>(std::stoi(std::string(p, 2), nullptr, 16));
    }
  }
  return all;
}

constexpr const char* kRet = "c3";
constexpr const char* kPushRbx = "53";
constexpr const char* kPopRbx = "5b";
constexpr const char* kLoadLock = "8b07";        // mov (%rdi), %eax
constexpr const char* kEndbr = "f30f1efa";
constexpr const char* kTestEax = "85c0";         // test %eax, %eax
constexpr const char* kXorEax = "31c0";          // xor %eax, %eax

TEST(SiteFinder, EntryThatIsEmulated) {
  const auto site = find(bytes({kPushRbx, kLoadLock, kPopRbx, kRet}));
  ASSERT_TRUE(site);
  EXPECT_EQ(site->address, kEntry);
  EXPECT_TRUE(site->emulated);
}

TEST(SiteFinder, FirstBranchBehindInstructionsThatAreStepped) {
  // As glibc's pthread_mutex_lock: all calls come by the branch, rdi intact.
  const auto site = find(bytes({kEndbr, kLoadLock, kTestEax, "7501", kRet, kPushRbx, kPopRbx, kRet}));
  ASSERT_TRUE(site);
  EXPECT_EQ(site->address, kEntry + 8);
  EXPECT_TRUE(site->emulated);
  EXPECT_FALSE(site->outcome_in_zero_flag);
}

TEST(SiteFinder, NotBehindABranch) {
  // mov; ret: the push that follows belongs to something else.
  const auto site = find(bytes({kLoadLock, kRet, kPushRbx}));
  ASSERT_TRUE(site);
  EXPECT_EQ(site->address, kEntry);
  EXPECT_FALSE(site->emulated);
}

TEST(SiteFinder, NotOnceAnArgumentIsGone) {
  for (const char* writes : {"31ff" /* xor %edi, %edi */, "4088c7" /* mov %al, %dil */,
                             "480fb7f8" /* movzx %ax, %rdi */}) {
    const auto site = find(bytes({kLoadLock, writes, kPushRbx, kRet}));
    ASSERT_TRUE(site) << writes;
    EXPECT_EQ(site->address, kEntry) << writes;
    EXPECT_FALSE(site->emulated) << writes;
  }
  // mov %rax, %rsi matters only where the second one is wanted.
  EXPECT_TRUE(find(bytes({kLoadLock, "4889c6", kPushRbx, kRet}), kFirst)->emulated);
  EXPECT_FALSE(find(bytes({kLoadLock, "4889c6", kPushRbx, kRet}), kFirstTwo)->emulated);
}

TEST(SiteFinder, AtTheInstructionThatTakesAnArgumentAwayTheyAreStillThere) {
  // call: emulated itself, and what comes after it has other registers.
  const auto site = find(bytes({kLoadLock, "e800000000", kPushRbx, kRet}));
  ASSERT_TRUE(site);
  EXPECT_EQ(site->address, kEntry + 2);
}

TEST(SiteFinder, NotWhereOtherPathsJoin) {
  // 0: mov; 2: xor; 4: push <- from 6: a call would be seen again and again.
  const auto loop = find(bytes({kLoadLock, kXorEax, kPushRbx, kPopRbx, "75fc", kRet}));
  ASSERT_TRUE(loop);
  EXPECT_EQ(loop->address, kEntry);
  EXPECT_FALSE(loop->emulated);
  // Back to the instruction after the entry: it and all behind it come again.
  const auto earlier = find(bytes({kLoadLock, kTestEax, "75fc", kRet}));
  ASSERT_TRUE(earlier);
  EXPECT_EQ(earlier->address, kEntry);
  EXPECT_FALSE(earlier->emulated);
}

TEST(SiteFinder, NoneWhereTheEntryComesAgain) {
  const auto site = find(bytes({kLoadLock, kTestEax, "75fa", kRet}));
  ASSERT_FALSE(site);
  EXPECT_EQ(site.error().message, "it jumps back to its entry");
}

TEST(SiteFinder, JumpsBackFromElsewhereCount) {
  // The function is [0x1000, 0x1005): its cold part, at 0x1005, jumps to 0x1002.
  Code code;
  code.add(kEntry, bytes({kLoadLock, kPushRbx, "7400", kPopRbx, "ebfa"}));
  const auto site = find_site(code, {kEntry, 5}, kFirst);
  ASSERT_TRUE(site);
  EXPECT_EQ(site->address, kEntry);
}

TEST(SiteFinder, WhatFollowsTheEndIsAnotherFunction) {
  // push; call abort | the next function, which jumps back to 0x1000 for reasons of its own.
  Code code;
  code.add(kEntry, bytes({kPushRbx, "e8f0ffffff", "ebf8"}));
  const auto site = find_site(code, {kEntry, 6}, kFirst);
  ASSERT_TRUE(site);
  EXPECT_EQ(site->address, kEntry);
  EXPECT_TRUE(site->emulated);
}

TEST(SiteFinder, LockPrefixesAreNeverProbed) {
  // lock xadd %eax, (%rdi); ret
  const auto none = find(bytes({"f00fc107", kRet}));
  ASSERT_TRUE(none);
  EXPECT_EQ(none->address, kEntry + 4) << "the ret is all that is left";
  EXPECT_FALSE(none->emulated);
}

TEST(SiteFinder, SpinLockTellsItsOutcome) {
  // glibc 2.36: lock decl (%rdi); jne 1f; xor; ret; 1: pause; cmpl $0, (%rdi); jle 1b; jmp 0b
  const std::string spin = bytes({"f0ff0f", "7503", kXorEax, kRet, "f390", "833f00", "7ef9", "ebef"});
  const auto site = find(spin);
  ASSERT_TRUE(site);
  EXPECT_EQ(site->address, kEntry + 3);
  EXPECT_TRUE(site->outcome_in_zero_flag);
  // On another lock than the first argument's it tells nothing.
  EXPECT_FALSE(find(bytes({"f0ff0e", "7501", kRet, kRet}))->outcome_in_zero_flag);
}

TEST(SiteFinder, PrefixesThatTheKernelDoesNotEmulate) {
  // notrack jmp and data16 nop look like what is emulated.
  EXPECT_FALSE(find(bytes({"6690", kRet}))->emulated);
  EXPECT_TRUE(find(bytes({"90", kRet}))->emulated);
  // push of memory is another opcode than that of a register.
  EXPECT_FALSE(find(bytes({"ff37", kRet}))->emulated);
  EXPECT_TRUE(find(bytes({"4155", kRet}))->emulated) << "push %r13";
}

TEST(SiteFinder, Undecodable) {
  const auto site = find(std::string("\x06\x06", 2));
  ASSERT_FALSE(site);
  EXPECT_EQ(site.error().message, "it has code that can't be decoded");
}

}  // namespace
}  // namespace lockscope
