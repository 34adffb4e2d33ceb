#pragma once

#include <cstdint>
#include <vector>

namespace lockscope {

/// Divides `amount` into whole shares in proportion to `weights` (not negative,
/// at least one above zero), by largest remainder: the shares add up to
/// `amount`, and each is off by less than one.
std::vector<uint64_t> apportion(uint64_t amount, const std::vector<double>& weights);

}  // namespace lockscope
