#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace lockscope {

/// A sum over the whole recording, estimated from slices of it.
struct Estimate {
  double value = 0;
  double error = 0;  ///< standard error; 0 if there are too few slices to tell
};

/// What slices of time saw of the pthread tier's objects, put together to estimates for
/// all of the time. Pure.
class SliceBooks {
 public:
  /// A process's id and an address in it, as in struct ls_object_key.
  using Key = std::pair<uint64_t, uint64_t>;
  /// What one slice saw of one object.
  struct Seen {
    uint64_t count = 0;  ///< holds that ended in it
    uint64_t ns = 0;     ///< time held, within the slice
    /// Share of their time that probes took of the threads that use it, at most 1.
    double slowed = 0;
  };
  struct Slice {
    uint64_t start_ns = 0, stop_ns = 0;
    std::map<Key, Seen> seen;
  };

  void add(Slice slice) { slices_.push_back(std::move(slice)); }
  size_t slices() const { return slices_.size(); }
  /// Within [start, stop): the share that slices cover.
  double observed_share(uint64_t start_ns, uint64_t stop_ns) const;

  struct Estimates {
    Estimate count;
    Estimate ns;
    double mean_error = 0;  ///< relative standard error of ns / count
  };
  /// For the time [start, stop), of every object that was seen. A slice stands for the
  /// time up to half-way to the slices before and after it: where probes were there
  /// less often because there was more to see, that is not counted for less. While
  /// they were there, the target got on more slowly than in the time between.
  std::map<Key, Estimates> estimate(uint64_t start_ns, uint64_t stop_ns) const;

 private:
  std::vector<Slice> slices_;
};

}  // namespace lockscope
