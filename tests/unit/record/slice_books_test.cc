#include "record/slice_books.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace lockscope {
namespace {

constexpr uint64_t kMs = 1'000'000, kSecond = 1'000'000'000;
const SliceBooks::Key kLock{1, 0x1000}, kOther{1, 0x2000};

TEST(SliceBooks, EqualSlicesOfSteadyWork) {
  SliceBooks books;
  for (uint64_t i = 0; i < 10; i++) {
    books.add({.start_ns = i * kSecond + 500 * kMs, .stop_ns = i * kSecond + 510 * kMs,
               .seen = {{kLock, {100, 8 * kMs}}}});
  }
  EXPECT_NEAR(books.observed_share(0, 10 * kSecond), 0.01, 1e-9);
  const auto all = books.estimate(0, 10 * kSecond);
  ASSERT_EQ(all.size(), 1u);
  EXPECT_NEAR(all.at(kLock).count.value, 100'000, 1);
  EXPECT_NEAR(all.at(kLock).ns.value, 8e9, 10);
  EXPECT_NEAR(all.at(kLock).count.error, 0, 1e-3);
}

TEST(SliceBooks, WhatProbesTookIsTakenOut) {
  SliceBooks books;
  books.add({.start_ns = 0, .stop_ns = kSecond, .seen = {{kLock, {100, kSecond / 4, 0.5}}}});
  const auto all = books.estimate(0, 2 * kSecond);
  // In the second half it was twice as fast.
  EXPECT_NEAR(all.at(kLock).count.value, 300, 1e-6);
  EXPECT_NEAR(all.at(kLock).ns.value, 0.75e9, 1);
  EXPECT_EQ(all.at(kLock).count.error, 0) << "one slice does not tell";
}

// Twice the slices in the quiet half: they stand for half the time each.
TEST(SliceBooks, DenserSlicesStandForLess) {
  SliceBooks books;
  const auto slice = [&](uint64_t at, uint64_t count) {
    books.add({.start_ns = at, .stop_ns = at + 10 * kMs, .seen = {{kLock, {count, 0}}}});
  };
  for (uint64_t i = 0; i < 20; i++) slice(i * 500 * kMs + 245 * kMs, 10);
  for (uint64_t i = 0; i < 10; i++) slice(10 * kSecond + i * kSecond + 495 * kMs, 1000);
  // Half-way between the halves lies a quarter of a second in the wrong one.
  const auto all = books.estimate(0, 20 * kSecond);
  EXPECT_NEAR(all.at(kLock).count.value, 1000 * 10 + 100'000 * 10, 0.02 * 1'010'000);
}

TEST(SliceBooks, ErrorsAreWhatTheyClaim) {
  std::mt19937 random(5);
  std::poisson_distribution<uint64_t> holds(40);
  std::uniform_int_distribution<uint64_t> gap(700, 1300);
  int within = 0, rounds = 400;
  double bias = 0;
  for (int round = 0; round < rounds; round++) {
    SliceBooks books;
    uint64_t at = gap(random) * kMs / 2;
    for (int i = 0; i < 20; i++) {
      const uint64_t n = holds(random);
      SliceBooks::Slice slice{.start_ns = at, .stop_ns = at + 10 * kMs};
      slice.seen[kLock] = {n, n * 100'000};
      if (i % 4 == 0) slice.seen[kOther] = {1, 1000};
      books.add(std::move(slice));
      at += gap(random) * kMs;
    }
    const auto all = books.estimate(0, at);
    const double truth = 40.0 / 0.01 * static_cast<double>(at) * 1e-9;
    const Estimate& count = all.at(kLock).count;
    bias += count.value / truth - 1;
    within += std::abs(count.value - truth) < 2 * count.error;
    EXPECT_LT(all.at(kLock).mean_error, 1e-6) << "they are all of one length";
    EXPECT_GT(all.at(kOther).count.error, 0.2 * all.at(kOther).count.value);
  }
  EXPECT_NEAR(bias / rounds, 0, 4 * 0.036 / std::sqrt(rounds));
  EXPECT_GT(within, 0.9 * rounds);
  EXPECT_LT(within, 0.99 * rounds);
}

}  // namespace
}  // namespace lockscope
