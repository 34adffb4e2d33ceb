#include "symbolize/dynamic_section.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace lockscope {
namespace {

constexpr uint64_t kMaxDynamicBytes = 64 << 10;
constexpr uint64_t kMaxRelocationsBytes = 256 << 20;  // chrome: 40 MB
constexpr size_t kEntriesPerRead = 4096;

constexpr uint64_t kMaxBuckets = 4 << 20;
constexpr uint64_t kMaxSymbols = 16 << 20;

template <class T>
std::optional<T> number_at(const ElfFile& file, uint64_t offset) {
  T value;
  if (file.read_at(offset, &value, sizeof value) != sizeof value) return std::nullopt;
  return value;
}

// How many symbols a DT_GNU_HASH table covers: all but the undefined ones at the
// front are in chains, and the last one ends the last chain. (Header: buckets,
// first symbol, words of the filter, shift; then filter, buckets, chains.)
std::optional<uint64_t> symbols_in_gnu_hash(const ElfFile& file, uint64_t offset) {
  uint32_t header[4];
  if (file.read_at(offset, header, sizeof header) != sizeof header) return std::nullopt;
  const uint64_t n_buckets = header[0];
  const uint64_t first = header[1];
  const uint64_t buckets_at = offset + sizeof header + uint64_t{header[2]} * 8;
  const auto buckets = file.bytes_at(buckets_at, n_buckets * 4, kMaxBuckets * 4);
  if (!buckets) return std::nullopt;
  uint64_t last = 0;
  for (uint64_t i = 0; i < n_buckets; ++i) {
    uint32_t symbol;
    std::memcpy(&symbol, buckets->data() + i * 4, sizeof symbol);
    last = std::max<uint64_t>(last, symbol);
  }
  if (last < first) return first;
  const uint64_t chains_at = buckets_at + n_buckets * 4;
  std::vector<uint32_t> chain(kEntriesPerRead);
  while (last < kMaxSymbols) {
    const size_t got =
        file.read_at(chains_at + (last - first) * 4, chain.data(), chain.size() * 4) / 4;
    for (size_t i = 0; i < got; ++i) {
      if (chain[i] & 1) return last + i + 1;
    }
    if (got == 0) break;
    last += got;
  }
  return std::nullopt;
}

}  // namespace

DynamicSection DynamicSection::load(const ElfFile& file) {
  DynamicSection result;
  for (const Elf64_Phdr& segment : file.segments()) {
    if (segment.p_type != PT_DYNAMIC) continue;
    const auto bytes = file.bytes_at(segment.p_offset, segment.p_filesz, kMaxDynamicBytes);
    if (!bytes) break;
    for (size_t at = 0; at + sizeof(Elf64_Dyn) <= bytes->size(); at += sizeof(Elf64_Dyn)) {
      Elf64_Dyn entry;
      std::memcpy(&entry, bytes->data() + at, sizeof entry);
      if (entry.d_tag == DT_NULL) break;
      result.values_.emplace(entry.d_tag, entry.d_un.d_val);
    }
    break;
  }
  return result;
}

std::optional<uint64_t> DynamicSection::value(int64_t tag) const {
  const auto found = values_.find(tag);
  if (found == values_.end()) return std::nullopt;
  return found->second;
}

std::optional<DynamicSymbols> DynamicSection::symbols(const ElfFile& file) const {
  const auto offset_of = [&](int64_t tag) {
    const auto address = value(tag);
    return address ? file.offset_of_address(*address) : std::nullopt;
  };
  const auto table = offset_of(DT_SYMTAB);
  const auto strings = offset_of(DT_STRTAB);
  if (!table || !strings || value(DT_SYMENT).value_or(0) != sizeof(Elf64_Sym)) return std::nullopt;
  std::optional<uint64_t> count;
  // DT_HASH: buckets, symbols.
  if (const auto hash = offset_of(DT_HASH)) count = number_at<uint32_t>(file, *hash + 4);
  if (const auto hash = offset_of(DT_GNU_HASH); hash && !count) {
    count = symbols_in_gnu_hash(file, *hash);
  }
  if (!count) return std::nullopt;
  return DynamicSymbols{*table, std::min(*count, kMaxSymbols), *strings,
                        value(DT_STRSZ).value_or(0)};
}

void DynamicSection::for_each_relative(const ElfFile& file,
                                       const std::function<bool(uint64_t, uint64_t)>& use) const {
  const auto address = value(DT_RELA);
  const auto offset = address ? file.offset_of_address(*address) : std::nullopt;
  if (!offset || value(DT_RELAENT).value_or(0) != sizeof(Elf64_Rela)) return;
  const uint64_t size = std::min(value(DT_RELASZ).value_or(0), kMaxRelocationsBytes);
  std::vector<Elf64_Rela> portion(kEntriesPerRead);
  for (uint64_t done = 0; done < size;) {
    const uint64_t wanted = std::min<uint64_t>(size - done, portion.size() * sizeof portion[0]);
    const size_t got = file.read_at(*offset + done, portion.data(), wanted) / sizeof portion[0];
    for (size_t i = 0; i < got; ++i) {
      if (ELF64_R_TYPE(portion[i].r_info) != R_X86_64_RELATIVE) continue;
      if (!use(portion[i].r_offset, static_cast<uint64_t>(portion[i].r_addend))) return;
    }
    if (got == 0) return;
    done += got * sizeof portion[0];
  }
}

}  // namespace lockscope
