#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "unwind/cfa_table.h"
#include "unwind/unwind_pool.h"

namespace lockscope {

/// A file's table in the pool.
struct StoredTable {
  struct Segment {
    uint64_t file_offset = 0;
    uint64_t size = 0;
    uint32_t directory = 0;  ///< pool index
    uint32_t n_pages = 0;
  };
  std::vector<Segment> segments;  ///< empty: the file has no unwind information
  std::vector<PoolExtent> extents;
  std::vector<uint16_t> rules;  ///< numbers taken in the pool
  uint64_t content = 0;         ///< hash of segments, rules and rows
  uint64_t last_use = 0;
};

/// Builds the table of an ELF file; see build_cfa_table(). That reads hostile
/// files: other than in tests, a FileParser does it.
using BuildTable = std::function<Result<CfaTable>(int fd)>;

/// Keeps one table per file, however many processes map it. Files are told
/// apart by device, inode, time of change and size. Copies of one file, as every
/// container image has its own of libc, are built once each and then found to be
/// the same by their content, row by row: not by build id, which is for a file's
/// maker to choose, who could spoil libc for everybody.
class TableStore {
 public:
  /// `on_evict` is told before a table's memory is given back; whoever refers
  /// to it must stop.
  TableStore(UnwindPool& pool, BuildTable build, std::function<void(const StoredTable&)> on_evict)
      : pool_(pool), build_(std::move(build)), on_evict_(std::move(on_evict)) {}

  /// The table of the file behind `fd`, built if need be (about 1 ms for libc,
  /// 50 ms for a 60 MB libLLVM). When the pool is full the tables that were used
  /// least recently go, but none used since the last new_round(). Fails if there
  /// is no room even so. Valid until evicted.
  Result<const StoredTable*> of_file(int fd);

  /// The vdso's, from our own copy: all 64-bit processes have the same.
  Result<const StoredTable*> of_vdso();

  /// Begins another process: tables used before may be evicted again.
  void new_round() { ++round_; }

  size_t files() const { return tables_.size(); }
  /// Different ones; files without unwind information have none.
  size_t tables() const { return by_content_.size(); }
  uint64_t evicted() const { return evicted_; }
  uint64_t refused() const { return refused_; }

 private:
  struct FileKey {
    uint64_t device = 0, inode = 0, size = 0;
    int64_t changed_s = 0, changed_ns = 0;
    auto operator<=>(const FileKey&) const = default;
  };

  using Pages = std::vector<std::vector<ls_unwind_row>>;

  Result<const StoredTable*> load(const FileKey& key, int fd);
  Result<std::shared_ptr<StoredTable>> store(const CfaTable& table);
  std::shared_ptr<StoredTable> find_same(const StoredTable& table, const CfaTable& source,
                                         const std::vector<Pages>& pages);
  bool same_rows(const StoredTable::Segment& segment, const Pages& pages);
  Status upload_segment(const CfaSegment& segment, const Pages& pages, StoredTable& stored);
  Result<PoolExtent> allocate(uint32_t words);
  bool evict_one();
  void give_back(StoredTable& stored);

  UnwindPool& pool_;
  BuildTable build_;
  std::function<void(const StoredTable&)> on_evict_;
  std::map<FileKey, std::shared_ptr<StoredTable>> tables_;
  std::unordered_multimap<uint64_t, std::shared_ptr<StoredTable>> by_content_;
  uint64_t round_ = 1;
  uint64_t evicted_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace lockscope
