#include "symbolize/dynamic_section.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace lockscope {
namespace {

constexpr uint64_t kMaxDynamicBytes = 64 << 10;
constexpr uint64_t kMaxRelocationsBytes = 256 << 20;  // chrome: 40 MB
constexpr size_t kRelocationsPerRead = 4096;

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

void DynamicSection::for_each_relative(
    const ElfFile& file, const std::function<bool(uint64_t, uint64_t)>& use) const {
  const auto address = value(DT_RELA);
  const auto offset = address ? file.offset_of_address(*address) : std::nullopt;
  if (!offset || value(DT_RELAENT).value_or(0) != sizeof(Elf64_Rela)) return;
  const uint64_t size = std::min(value(DT_RELASZ).value_or(0), kMaxRelocationsBytes);
  std::vector<Elf64_Rela> portion(kRelocationsPerRead);
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
