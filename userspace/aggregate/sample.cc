#include "aggregate/sample.h"

#include <algorithm>
#include <numeric>

#include "aggregate/apportion.h"

namespace lockscope {
namespace {

bool any(const std::vector<double>& weights) {
  return std::any_of(weights.begin(), weights.end(), [](double weight) { return weight > 0; });
}

// What `all` has and the parts have not, to the parts.
void give(uint64_t all, const std::vector<uint64_t*>& parts, const std::vector<double>& weights) {
  uint64_t present = 0;
  for (const uint64_t* part : parts) present += *part;
  if (all <= present || !any(weights)) return;
  const std::vector<uint64_t> shares = apportion(all - present, weights);
  for (size_t i = 0; i < parts.size(); i++) *parts[i] += shares[i];
}

template <class Row, class Field>
std::vector<uint64_t*> fields(const std::vector<Row*>& rows, Field field) {
  std::vector<uint64_t*> parts;
  for (Row* row : rows) parts.push_back(&field(*row));
  return parts;
}

// How many like each of its own a row stands for.
template <class Row, class Field>
std::vector<double> factors(const std::vector<Row*>& rows, const std::vector<double>& excess,
                            Field field) {
  std::vector<double> factors;
  for (size_t i = 0; i < rows.size(); i++) {
    const uint64_t own = field(*rows[i]);
    factors.push_back(own > 0 ? excess[i] / static_cast<double>(own) : 0);
  }
  return factors;
}

// As many like those in the row as it stands for; where no row has such at all,
// by what they stand for altogether.
std::vector<double> likely(const std::vector<uint64_t*>& parts, const std::vector<double>& factors,
                           const std::vector<double>& excess) {
  std::vector<double> weights;
  for (size_t i = 0; i < parts.size(); i++) {
    weights.push_back(static_cast<double>(*parts[i]) * factors[i]);
  }
  return any(weights) ? weights : excess;
}

template <class Row, class Field>
void scale_up_durations(const std::vector<Row*>& rows, const std::vector<double>& excess,
                        Field durations, const Durations& sums) {
  if (rows.empty() || !any(excess)) return;
  const auto factor =
      factors(rows, excess, [&](Row& row) { return durations(row).total_ns; });
  for (size_t slot = 0; slot < sums.histogram.slots.size(); slot++) {
    const auto parts = fields(
        rows, [&](Row& row) -> uint64_t& { return durations(row).histogram.slots[slot]; });
    give(sums.histogram.slots[slot], parts, likely(parts, factor, excess));
  }
  give(sums.total_ns, fields(rows, [&](Row& row) -> uint64_t& { return durations(row).total_ns; }),
       excess);
  for (Row* row : rows) durations(*row).count = durations(*row).histogram.count();
  // Whose the longest was is not known if its stack was not taken: most likely
  // of the one that stands for most.
  const auto most = std::max_element(excess.begin(), excess.end()) - excess.begin();
  uint64_t& max_ns = durations(*rows[static_cast<size_t>(most)]).max_ns;
  const bool seen = std::any_of(rows.begin(), rows.end(),
                                [&](Row* row) { return durations(*row).max_ns >= sums.max_ns; });
  if (!seen) max_ns = sums.max_ns;
}

}  // namespace

void scale_up(SampledWaits& sample, const WaitRow& sums) {
  const auto factor =
      factors(sample.rows, sample.excess_ns, [](WaitRow& row) { return row.ended.total_ns; });
  for (const auto field : {&WaitRow::sleeps, &WaitRow::timeouts}) {
    const auto parts =
        fields(sample.rows, [&](WaitRow& row) -> uint64_t& { return row.*field; });
    give(sums.*field, parts, likely(parts, factor, sample.excess_ns));
  }
  scale_up_durations(sample.rows, sample.excess_ns,
                     [](WaitRow& row) -> Durations& { return row.ended; }, sums.ended);
}

void scale_up(SampledReleases& sample, const ReleaseRow& sums) {
  const auto field = [&](uint64_t ReleaseRow::*member) {
    return fields(sample.rows, [&](ReleaseRow& row) -> uint64_t& { return row.*member; });
  };
  give(sums.count, field(&ReleaseRow::count), sample.excess_count);
  give(sums.blame_ns, field(&ReleaseRow::blame_ns), sample.excess_blame_ns);
  scale_up_durations(sample.rows, sample.excess_hold_ns,
                     [](ReleaseRow& row) -> Durations& { return row.hold; }, sums.hold);
}

void scale_up(SampledPairs& sample, const PairRow& sums) {
  const auto factor =
      factors(sample.rows, sample.excess_ns, [](PairRow& row) { return row.total_ns; });
  const auto counts = fields(sample.rows, [](PairRow& row) -> uint64_t& { return row.count; });
  give(sums.count, counts, likely(counts, factor, sample.excess_ns));
  give(sums.total_ns, fields(sample.rows, [](PairRow& row) -> uint64_t& { return row.total_ns; }),
       sample.excess_ns);
}

}  // namespace lockscope
