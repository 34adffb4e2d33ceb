#include "unwind/table_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "process/vdso.h"

namespace lockscope {
namespace {

constexpr uint32_t kPageBytes = 1 << LS_UNWIND_PAGE_SHIFT;

// Rows go to the pool in blocks of about this many, so that a large table does
// not need a whole free segment.
constexpr size_t kBlockRows = 16384;

/// The rows of each 64 KiB page, the rule in force at its beginning first.
std::vector<std::vector<ls_unwind_row>> split_pages(const CfaSegment& segment,
                                                    const std::vector<uint16_t>& numbers) {
  std::vector<std::vector<ls_unwind_row>> pages(segment.pages());
  auto row = segment.rows.begin();
  uint16_t in_force = 0;
  for (size_t p = 0; p < pages.size(); ++p) {
    auto& page = pages[p];
    const uint64_t end = (uint64_t{p} + 1) * kPageBytes;
    if (row == segment.rows.end() || row->offset != p * kPageBytes) page.push_back({0, in_force});
    for (; row != segment.rows.end() && row->offset < end; ++row) {
      in_force = numbers[row->rule];
      page.push_back({static_cast<uint16_t>(row->offset % kPageBytes), in_force});
    }
  }
  return pages;
}

}  // namespace

Result<const StoredTable*> TableStore::of_file(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return failed(std::strerror(errno));
  const FileKey key{info.st_dev, info.st_ino, static_cast<uint64_t>(info.st_size),
                    info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
  return load(key, fd);
}

Result<const StoredTable*> TableStore::of_vdso() {
  if (tables_.contains(FileKey{})) return load(FileKey{}, -1);
  const auto vdso = open_vdso();
  if (!vdso) return vdso.error();
  return load(FileKey{}, vdso->get());
}

Result<const StoredTable*> TableStore::load(const FileKey& key, int fd) {
  if (const auto known = tables_.find(key); known != tables_.end()) {
    known->second->last_use = round_;
    return known->second.get();
  }
  auto stored = std::make_unique<StoredTable>();
  stored->last_use = round_;
  // A file without unwind information is remembered as such, too.
  if (auto table = build_(fd)) {
    if (auto status = upload(*table, *stored); !status) {
      give_back(*stored);
      ++refused_;
      return status.error();
    }
  }
  return tables_.emplace(key, std::move(stored)).first->second.get();
}

Status TableStore::upload(const CfaTable& table, StoredTable& stored) {
  std::vector<uint16_t> numbers;
  for (const ls_unwind_rule& rule : table.rules) {
    numbers.push_back(pool_.add_rule(rule));
    stored.rules.push_back(numbers.back());
  }
  for (const CfaSegment& segment : table.segments)
    if (auto status = upload_segment(segment, numbers, stored); !status) return status;
  return {};
}

Status TableStore::upload_segment(const CfaSegment& segment, const std::vector<uint16_t>& numbers,
                                  StoredTable& stored) {
  const auto pages = split_pages(segment, numbers);
  if (pages.empty()) return {};
  std::vector<ls_unwind_page> directory;
  const uint32_t directory_words = static_cast<uint32_t>(pages.size()) * 2;
  PoolExtent directory_at;
  for (size_t first = 0; first < pages.size();) {
    size_t rows = 0, last = first;
    while (last < pages.size() && (last == first || rows + pages[last].size() <= kBlockRows))
      rows += pages[last++].size();
    // The directory shares the first block: a small library takes one chunk.
    const uint32_t lead = first == 0 ? directory_words : 0;
    auto extent = allocate(static_cast<uint32_t>(rows) + lead);
    if (!extent) return extent.error();
    stored.extents.push_back(*extent);
    if (first == 0) directory_at = *extent;
    uint32_t* words = pool_.words(*extent);
    if (!words) return failed("cannot map the unwind tables");
    uint32_t at = lead;
    for (; first < last; ++first) {
      const auto& page = pages[first];
      directory.push_back({extent->index + at, static_cast<uint32_t>(page.size())});
      std::memcpy(words + at, page.data(), page.size() * sizeof page[0]);
      at += static_cast<uint32_t>(page.size());
    }
  }
  uint32_t* words = pool_.words(directory_at);
  if (!words) return failed("cannot map the unwind tables");
  std::memcpy(words, directory.data(), directory.size() * sizeof directory[0]);
  stored.segments.push_back({segment.file_offset, segment.size, directory_at.index,
                             static_cast<uint32_t>(pages.size())});
  return {};
}

Result<PoolExtent> TableStore::allocate(uint32_t words) {
  while (true) {
    auto extent = pool_.allocate(words);
    if (extent || !evict_one()) return extent;
  }
}

bool TableStore::evict_one() {
  auto oldest = tables_.end();
  for (auto it = tables_.begin(); it != tables_.end(); ++it) {
    if (it->second->last_use == round_ || it->second->extents.empty()) continue;
    if (oldest == tables_.end() || it->second->last_use < oldest->second->last_use) oldest = it;
  }
  if (oldest == tables_.end()) return false;
  on_evict_(*oldest->second);
  give_back(*oldest->second);
  tables_.erase(oldest);
  ++evicted_;
  return true;
}

void TableStore::give_back(StoredTable& stored) {
  for (const PoolExtent& extent : stored.extents) pool_.free(extent);
  for (const uint16_t rule : stored.rules) pool_.drop_rule(rule);
  stored.extents.clear();
  stored.rules.clear();
}

}  // namespace lockscope
