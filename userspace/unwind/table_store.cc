#include "unwind/table_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <bit>
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

/// To find what may be the same; whether it is, its rows say.
uint64_t content_of(const CfaTable& table,
                    const std::vector<std::vector<std::vector<ls_unwind_row>>>& pages) {
  uint64_t hash = 0;
  const auto mix = [&hash](uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 32;
  };
  for (const CfaSegment& segment : table.segments) {
    mix(segment.file_offset);
    mix(segment.size);
  }
  for (const auto& segment : pages)
    for (const auto& page : segment)
      for (const ls_unwind_row& row : page) mix(std::bit_cast<uint32_t>(row));
  return hash;
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
  // A file without unwind information is remembered as such, too.
  auto stored = std::make_shared<StoredTable>();
  if (auto table = build_(fd)) {
    auto done = store(*table);
    if (!done) {
      ++refused_;
      return done.error();
    }
    stored = *done;
  }
  stored->last_use = round_;
  return tables_.emplace(key, std::move(stored)).first->second.get();
}

Result<std::shared_ptr<StoredTable>> TableStore::store(const CfaTable& table) {
  auto stored = std::make_shared<StoredTable>();
  for (const ls_unwind_rule& rule : table.rules) stored->rules.push_back(pool_.add_rule(rule));
  std::vector<Pages> pages;
  for (const CfaSegment& segment : table.segments)
    pages.push_back(split_pages(segment, stored->rules));
  stored->content = content_of(table, pages);
  if (auto same = find_same(*stored, table, pages)) {
    give_back(*stored);
    return same;
  }
  for (size_t i = 0; i < pages.size(); ++i) {
    if (auto status = upload_segment(table.segments[i], pages[i], *stored); !status) {
      give_back(*stored);
      return status.error();
    }
  }
  by_content_.emplace(stored->content, stored);
  return stored;
}

std::shared_ptr<StoredTable> TableStore::find_same(const StoredTable& table,
                                                   const CfaTable& source,
                                                   const std::vector<Pages>& pages) {
  const auto [first, last] = by_content_.equal_range(table.content);
  for (auto it = first; it != last; ++it) {
    const StoredTable& known = *it->second;
    if (known.rules != table.rules || known.segments.size() != pages.size()) continue;
    bool same = true;
    for (size_t i = 0; same && i < pages.size(); ++i) {
      const StoredTable::Segment& segment = known.segments[i];
      same = segment.file_offset == source.segments[i].file_offset &&
             segment.size == source.segments[i].size && same_rows(segment, pages[i]);
    }
    if (same) return it->second;
  }
  return nullptr;
}

bool TableStore::same_rows(const StoredTable::Segment& segment, const Pages& pages) {
  if (segment.n_pages != pages.size()) return false;
  const auto* directory =
      reinterpret_cast<const ls_unwind_page*>(pool_.words({segment.directory, 1}));
  for (size_t p = 0; directory && p < pages.size(); ++p) {
    const uint32_t* rows = pool_.words({directory[p].rows, 1});
    if (!rows || directory[p].n_rows != pages[p].size() ||
        std::memcmp(rows, pages[p].data(), pages[p].size() * sizeof pages[p][0]) != 0)
      return false;
  }
  return directory != nullptr;
}

Status TableStore::upload_segment(const CfaSegment& segment, const Pages& pages,
                                  StoredTable& stored) {
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
  auto oldest = by_content_.end();
  for (auto it = by_content_.begin(); it != by_content_.end(); ++it) {
    if (it->second->last_use == round_ || it->second->extents.empty()) continue;
    if (oldest == by_content_.end() || it->second->last_use < oldest->second->last_use) oldest = it;
  }
  if (oldest == by_content_.end()) return false;
  const auto evicted = oldest->second;
  by_content_.erase(oldest);
  on_evict_(*evicted);
  give_back(*evicted);
  std::erase_if(tables_, [&](const auto& entry) { return entry.second == evicted; });
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
