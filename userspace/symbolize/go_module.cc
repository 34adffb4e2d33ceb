#include "symbolize/go_module.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>

#include "symbolize/dynamic_section.h"

namespace lockscope {
namespace {

constexpr uint64_t kMaxTableBytes = 128 << 20;  // kubelet: 30 MB
// Of one segment, when searching: the data of large programs is 100 MB.
constexpr uint64_t kMaxSearchedBytes = 512 << 20;
constexpr size_t kBytesPerRead = 1 << 20;
constexpr size_t kMaxCandidates = 8;
// Up to `gofunc` in every version, and some more.
constexpr size_t kModuleDataWords = 64;

/// Calls `use(offset in the file, words)` for all data of a kind of segment, in
/// portions, until that returns false.
void search_data(const ElfFile& file, uint32_t flags,
                 const std::function<bool(uint64_t, const std::vector<uint64_t>&)>& use) {
  std::vector<uint64_t> words;
  for (const Elf64_Phdr& segment : file.segments()) {
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) ||
        (segment.p_flags & flags) != flags) {
      continue;
    }
    uint64_t at = (segment.p_offset + 7) & ~uint64_t{7};
    const uint64_t size = std::min<uint64_t>(segment.p_filesz, kMaxSearchedBytes);
    const uint64_t end = std::min<uint64_t>(file.size_bytes(), segment.p_offset + size);
    while (at + 8 <= end) {
      words.resize(std::min<uint64_t>(end - at, kBytesPerRead) / 8);
      const size_t got = file.read_at(at, words.data(), words.size() * 8) / 8;
      words.resize(got);
      if (got == 0) break;
      if (!use(at, words)) return;
      at += got * 8;
    }
  }
}

std::vector<uint64_t> read_words(const ElfFile& file, uint64_t offset) {
  std::vector<uint64_t> words(kModuleDataWords);
  words.resize(file.read_at(offset, words.data(), words.size() * 8) / 8);
  return words;
}

// The first two words are the table's address and that of its names.
std::vector<uint64_t> module_data_in_place(const ElfFile& file, uint64_t table, uint64_t names) {
  std::vector<uint64_t> found;
  search_data(file, PF_W, [&](uint64_t offset, const std::vector<uint64_t>& words) {
    for (size_t i = 0; i < words.size(); ++i) {
      if (words[i] != table) continue;
      auto here = read_words(file, offset + i * 8);
      if (here.size() < 2 || here[1] != names) continue;
      found = std::move(here);
      return false;
    }
    return true;
  });
  return found;
}

// In a file that may be loaded anywhere, addresses are in the relocations.
std::vector<uint64_t> module_data_by_relocation(const ElfFile& file, uint64_t table,
                                                uint64_t names) {
  const DynamicSection dynamic = DynamicSection::load(file);
  std::vector<uint64_t> starts;
  dynamic.for_each_relative(file, [&](uint64_t where, uint64_t what) {
    if (what == table) starts.push_back(where);
    return starts.size() < kMaxCandidates;
  });
  for (const uint64_t start : starts) {
    const auto offset = file.offset_of_address(start);
    if (!offset) continue;
    auto words = read_words(file, *offset);
    dynamic.for_each_relative(file, [&](uint64_t where, uint64_t what) {
      const uint64_t index = (where - start) / 8;
      if (where >= start && index < words.size()) words[index] = what;
      return true;
    });
    if (words.size() >= 2 && words[1] == names) return words;
  }
  return {};
}

}  // namespace

bool is_go(const ElfFile& file) {
  for (const char* name :
       {".go.buildinfo", ".gopclntab", ".note.go.buildid", ".data.rel.ro.gopclntab"}) {
    if (file.find_section(name)) return true;
  }
  return false;
}

std::vector<GoTablePlace> find_go_tables(const ElfFile& file) {
  for (const char* name : {".gopclntab", ".data.rel.ro.gopclntab"}) {  // the latter: PIE
    const ElfFile::Section* section = file.find_section(name);
    if (!section || section->header.sh_type == SHT_NOBITS) continue;
    const Elf64_Shdr& header = section->header;
    if (header.sh_offset > file.size_bytes()) continue;
    return {{header.sh_addr, header.sh_offset,
             std::min<uint64_t>(
                 {header.sh_size, kMaxTableBytes, file.size_bytes() - header.sh_offset})}};
  }
  // Files whose sections were stripped do not say what they are.
  if (!file.sections().empty() && !is_go(file)) return {};
  std::vector<GoTablePlace> found;
  search_data(file, 0, [&](uint64_t offset, const std::vector<uint64_t>& words) {
    for (size_t i = 0; i < words.size(); ++i) {
      const auto magic = static_cast<uint32_t>(words[i]);
      // Instruction size 1, pointer size 8.
      if ((magic != kGoMagic118 && magic != kGoMagic120) || words[i] >> 32 != 0x08010000) continue;
      const uint64_t at = offset + i * 8;
      const auto address = file.address_of_offset(at);
      if (address) {
        found.push_back({*address, at, std::min(file.size_bytes() - at, kMaxTableBytes)});
      }
      if (found.size() >= kMaxCandidates) return false;
    }
    return true;
  });
  return found;
}

std::vector<uint64_t> find_go_module_data(const ElfFile& file, uint64_t table, uint64_t names) {
  auto words = module_data_in_place(file, table, names);
  return words.empty() ? module_data_by_relocation(file, table, names) : words;
}

}  // namespace lockscope
