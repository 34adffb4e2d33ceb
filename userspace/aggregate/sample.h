#pragma once

#include <cstdint>
#include <vector>

#include "capture/capture.h"

namespace lockscope {

/// The rows of one lock, one a stack, and what each stands for beyond itself by
/// the weights of its sample (bpf/sampling.h).
struct SampledWaits {
  std::vector<WaitRow*> rows;
  std::vector<double> excess_ns;
};

struct SampledReleases {
  std::vector<ReleaseRow*> rows;
  std::vector<double> excess_count;
  std::vector<double> excess_blame_ns;
  std::vector<double> excess_hold_ns;
};

struct SampledPairs {
  std::vector<PairRow*> rows;
  std::vector<double> excess_ns;
};

/// Gives the rows what the sums of all the lock's events have and they have not,
/// of events whose stacks were not taken: to each in proportion to its excess.
/// The rows then add up to the sums, exactly. What no row stands for is left.
void scale_up(SampledWaits& sample, const WaitRow& sums);
void scale_up(SampledReleases& sample, const ReleaseRow& sums);
void scale_up(SampledPairs& sample, const PairRow& sums);

}  // namespace lockscope
