#include "process/futex_wait.h"

#include <gtest/gtest.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#include "events.h"

namespace lockscope {
namespace {

TEST(DecodeFutexWait, PrivateWaitWithATimeOut) {
  const auto wait = decode_futex_wait(SYS_futex, {0x1000, FUTEX_WAIT_PRIVATE, 2, 0x7000, 0, 0});
  ASSERT_TRUE(wait);
  EXPECT_EQ(*wait, (FutexWait{.word = 0x1000, .op = LS_OP_WAIT, .value = 2, .timed = true}));
  EXPECT_EQ(wait_traits(*wait), LS_TRAIT_TIMEOUT | LS_TRAIT_PLAIN_WAIT | LS_TRAIT_VAL_2);
}

TEST(DecodeFutexWait, TheClockIsNotPartOfTheOperation) {
  const auto wait = decode_futex_wait(
      SYS_futex, {0x1000, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 7, 0, 0, ~0u});
  ASSERT_TRUE(wait);
  EXPECT_EQ(wait->op, LS_OP_WAIT_BITSET);
  EXPECT_TRUE(wait->shared);
  EXPECT_FALSE(wait->timed);
}

TEST(DecodeFutexWait, TheNewerCalls) {
  const auto wait = decode_futex_wait(455, {0x1000, 3, ~0u, FUTEX_PRIVATE_FLAG, 0x7000, 0});
  ASSERT_TRUE(wait);
  EXPECT_EQ(wait->value, 3u);
  EXPECT_FALSE(wait->shared);
  EXPECT_TRUE(wait->timed);
  const auto many = decode_futex_wait(449, {0x2000, 5, 0, 0, 0, 0});
  ASSERT_TRUE(many);
  EXPECT_EQ(many->elements, 5u);
}

TEST(DecodeFutexWait, CallsThatDoNotWait) {
  EXPECT_FALSE(decode_futex_wait(SYS_futex, {0x1000, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0}));
  EXPECT_FALSE(decode_futex_wait(SYS_futex, {0x1000, FUTEX_UNLOCK_PI, 0, 0, 0, 0}));
  EXPECT_FALSE(decode_futex_wait(SYS_read, {0, 0x1000, 10, 0, 0, 0}));
  EXPECT_FALSE(decode_futex_wait(-1, {}));
}

TEST(SystemCallName, KnownAndNot) {
  EXPECT_EQ(system_call_name(SYS_futex), "futex");
  EXPECT_EQ(system_call_name(449), "futex_waitv");
  EXPECT_EQ(system_call_name(100000), "");
}

}  // namespace
}  // namespace lockscope
