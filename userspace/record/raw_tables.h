#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "capture/capture.h"
#include "events.h"
#include "probe/futex_probe.h"
#include "probe/holder_probe.h"
#include "probe/pthread_probe.h"
#include "record/slice_books.h"

namespace lockscope {

/// The kernel's tables as they stood at the end of a capture, and what user
/// space saw beside them. Plain data; aggregate() makes a Capture of it.
struct RawTables {
  template <class Key, class Row>
  using Table = std::vector<std::pair<Key, Row>>;

  Table<uint32_t, ls_thread> threads;
  Table<uint64_t, ls_lock> locks;
  Table<ls_row_key, ls_wait_row> waits;
  Table<ls_row_key, ls_release_row> releases;
  Table<ls_pair_key, ls_pair_row> pairs;
  Table<ls_stack_key, ls_frames> stacks;
  std::array<uint64_t, LS_COUNTERS> counters{};

  /// Of the pthread tier, if it was there.
  Table<uint32_t, ls_pthread> pthreads;
  Table<ls_object_key, ls_object> objects;
  Table<ls_hold_key, ls_hold_row> hold_rows;
  Table<ls_order_key, ls_order_row> orders;
  std::array<uint64_t, LS_PTHREAD_COUNTERS> pthread_counters{};
  uint32_t slice = 0;  ///< the last one, of which `pthreads` are true
  /// Where probes were there for slices of the time only: what these say of all of it,
  /// instead of the objects' own sums.
  size_t slices = 0;
  double observed_share = 1;
  std::map<SliceBooks::Key, SliceBooks::Estimates> estimates;

  /// Of the holder tier, if it was there.
  Table<uint32_t, ls_holder> holders;
  Table<ls_split_key, ls_split> splits;
  Table<ls_activity_key, ls_activity_row> activities;

  uint64_t start_ns = 0;  ///< CLOCK_MONOTONIC
  uint64_t stop_ns = 0;

  std::map<uint64_t, Process> processes;
  /// Stacks, taken at the end, of threads that had been asleep since before the
  /// capture; by tid.
  std::map<uint32_t, ls_frames> asleep_stacks;
  /// Lock id -> tid that glibc's mutex names as its owner, a live thread.
  std::map<uint64_t, int32_t> owners;
};

/// Reads the threads of a probe, stopped or not.
Result<RawTables::Table<uint32_t, ls_thread>> read_threads(const FutexMaps& maps);

/// Reads all tables of a stopped probe.
Result<RawTables> read_tables(const FutexMaps& maps);

/// Reads the threads of the pthread tier.
Result<RawTables::Table<uint32_t, ls_pthread>> read_pthreads(const PthreadMaps& maps);

/// Reads those of the pthread tier into `tables`.
Status read_pthread_tables(const PthreadMaps& maps, RawTables& tables);

/// Reads those of the holder tier into `tables`.
Status read_holder_tables(const HolderMaps& maps, RawTables& tables);

}  // namespace lockscope
