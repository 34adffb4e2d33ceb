#include "aggregate/apportion.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lockscope {

std::vector<uint64_t> apportion(uint64_t amount, const std::vector<double>& weights) {
  const long double sum = std::accumulate(weights.begin(), weights.end(), 0.0L);
  std::vector<uint64_t> shares;
  std::vector<long double> remainders;
  uint64_t left = amount;
  for (const double weight : weights) {
    const long double exact = static_cast<long double>(amount) * weight / sum;
    const uint64_t whole = std::min(static_cast<uint64_t>(exact), left);
    shares.push_back(whole);
    remainders.push_back(exact - static_cast<long double>(whole));
    left -= whole;
  }
  std::vector<size_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return remainders[a] > remainders[b]; });
  for (size_t i = 0; left > 0; i = (i + 1) % order.size()) {
    if (weights[order[i]] == 0) continue;
    shares[order[i]]++;
    left--;
  }
  return shares;
}

}  // namespace lockscope
