#include "record/slice_books.h"

#include <algorithm>
#include <cmath>

namespace lockscope {
namespace {

// Beyond this a target did hardly anything but hit probes, and how much it would have
// done without them can't be told.
constexpr double kMostSlowed = 0.95;

// By which a hit's cost, measured elsewhere, may be wrong.
constexpr double kCostError = 0.1;

// Of rates r_i that stand for w_i of the time each: the error of their weighted sum,
// from how they differ among themselves.
double error_of(const std::vector<double>& rates, const std::vector<double>& weights,
                double observed_share) {
  const size_t n = rates.size();
  if (n < 3) return 0;
  double sum = 0, total = 0, squares = 0;
  for (size_t i = 0; i < n; i++) {
    sum += weights[i] * rates[i];
    total += weights[i];
  }
  const double mean = sum / total;
  for (size_t i = 0; i < n; i++) squares += std::pow(weights[i] * (rates[i] - mean), 2);
  const auto count = static_cast<double>(n);
  return std::sqrt(squares * count / (count - 1) * (1 - observed_share));
}

}  // namespace

double SliceBooks::observed_share(uint64_t start_ns, uint64_t stop_ns) const {
  double observed = 0;
  for (const Slice& slice : slices_) observed += static_cast<double>(slice.stop_ns - slice.start_ns);
  return stop_ns > start_ns ? observed / static_cast<double>(stop_ns - start_ns) : 0;
}

std::map<SliceBooks::Key, SliceBooks::Estimates> SliceBooks::estimate(uint64_t start_ns,
                                                                      uint64_t stop_ns) const {
  std::map<Key, Estimates> all;
  if (slices_.empty()) return all;
  const size_t n = slices_.size();
  // Time that each slice stands for.
  std::vector<double> weights(n), lengths(n);
  for (size_t i = 0; i < n; i++) {
    const Slice& slice = slices_[i];
    const uint64_t from = i == 0 ? start_ns : (slices_[i - 1].stop_ns + slice.start_ns) / 2;
    const uint64_t to = i + 1 == n ? stop_ns : (slice.stop_ns + slices_[i + 1].start_ns) / 2;
    weights[i] = static_cast<double>(to - from);
    lengths[i] = static_cast<double>(std::max<uint64_t>(slice.stop_ns - slice.start_ns, 1));
  }
  const double observed = observed_share(start_ns, stop_ns);
  // From what a slice saw to what it stands for, for each ns of that. In the slice itself
  // the threads were as slow as they were seen to be.
  const auto factor = [&](size_t i, double slowed) {
    return ((weights[i] - lengths[i]) / (1 - slowed) + lengths[i]) / (lengths[i] * weights[i]);
  };

  for (const Slice& slice : slices_) {
    for (const auto& [key, seen] : slice.seen) all.emplace(key, Estimates{});
  }
  std::vector<double> counts(n), times(n), residuals(n);
  for (auto& [key, estimates] : all) {
    double count = 0, ns = 0, slowed_count = 0;
    for (size_t i = 0; i < n; i++) {
      const auto found = slices_[i].seen.find(key);
      const Seen seen = found == slices_[i].seen.end() ? Seen{} : found->second;
      const double slowed = std::min(seen.slowed, kMostSlowed);
      counts[i] = static_cast<double>(seen.count) * factor(i, slowed);
      times[i] = static_cast<double>(seen.ns) * factor(i, slowed);
      slowed_count += weights[i] * counts[i] * slowed / (1 - slowed);
      count += weights[i] * counts[i];
      ns += weights[i] * times[i];
    }
    // What a hit costs may be wrong, for all slices alike.
    const double cost_error = count > 0 ? kCostError * slowed_count / count : 0;
    const auto with_cost = [&](double value, double error) {
      return Estimate{value, error > 0 ? std::hypot(error, value * cost_error) : 0};
    };
    estimates.count = with_cost(count, error_of(counts, weights, observed));
    estimates.ns = with_cost(ns, error_of(times, weights, observed));
    if (count <= 0 || ns <= 0) continue;
    for (size_t i = 0; i < n; i++) residuals[i] = times[i] - ns / count * counts[i];
    estimates.mean_error = error_of(residuals, weights, observed) / ns;
  }
  return all;
}

}  // namespace lockscope
