#include "uprobe/versioned_symbols.h"

#include <cstring>
#include <map>
#include <optional>

namespace lockscope {
namespace {

constexpr uint64_t kMaxBytes = 256 << 20;
constexpr int kMaxVersions = 4096;

std::string string_at(const std::string& strings, uint64_t offset) {
  if (offset >= strings.size()) return "";
  return strings.substr(offset, ::strnlen(strings.data() + offset, strings.size() - offset));
}

std::optional<std::string> linked_strings(const ElfFile& file, const ElfFile::Section* section) {
  if (section->header.sh_link >= file.sections().size()) return std::nullopt;
  return file.bytes_of(&file.sections()[section->header.sh_link], kMaxBytes);
}

template <class T>
std::optional<T> read_struct(const std::string& bytes, uint64_t offset) {
  T value;
  if (offset > bytes.size() || bytes.size() - offset < sizeof value) return std::nullopt;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

// .gnu.version_d: number -> name
std::map<uint16_t, std::string> version_names(const ElfFile& file) {
  std::map<uint16_t, std::string> names;
  const auto* section = file.find_section(SHT_GNU_verdef);
  if (section == nullptr) return names;
  const auto bytes = file.bytes_of(section, kMaxBytes);
  const auto strings = linked_strings(file, section);
  if (!bytes || !strings) return names;
  uint64_t offset = 0;
  for (int i = 0; i < kMaxVersions; i++) {
    const auto definition = read_struct<Elf64_Verdef>(*bytes, offset);
    if (!definition) break;
    const auto name = read_struct<Elf64_Verdaux>(*bytes, offset + definition->vd_aux);
    if (name) names[definition->vd_ndx] = string_at(*strings, name->vda_name);
    if (definition->vd_next == 0) break;
    offset += definition->vd_next;
  }
  return names;
}

}  // namespace

std::vector<VersionedSymbol> read_versioned_symbols(
    const ElfFile& file, const std::function<bool(std::string_view)>& wanted) {
  std::vector<VersionedSymbol> found;
  for (const uint32_t type : {SHT_DYNSYM, SHT_SYMTAB}) {
    const auto* table = file.find_section(type);
    if (table == nullptr || table->header.sh_entsize != sizeof(Elf64_Sym)) continue;
    const auto symbols = file.bytes_of(table, kMaxBytes);
    const auto strings = linked_strings(file, table);
    if (!symbols || !strings) continue;
    std::string versions;
    std::map<uint16_t, std::string> names;
    if (type == SHT_DYNSYM) {
      versions = file.bytes_of(file.find_section(SHT_GNU_versym), kMaxBytes).value_or("");
      names = version_names(file);
    }
    for (uint64_t i = 0; i * sizeof(Elf64_Sym) < symbols->size(); i++) {
      const auto symbol = read_struct<Elf64_Sym>(*symbols, i * sizeof(Elf64_Sym));
      if (!symbol) break;
      const int kind = ELF64_ST_TYPE(symbol->st_info);
      if ((kind != STT_FUNC && kind != STT_GNU_IFUNC) || symbol->st_value == 0 ||
          symbol->st_shndx == SHN_UNDEF || symbol->st_name >= strings->size()) {
        continue;
      }
      const std::string name = string_at(*strings, symbol->st_name);
      if (!wanted(name)) continue;
      VersionedSymbol entry{.name = name, .address = symbol->st_value, .size = symbol->st_size};
      entry.is_indirect = kind == STT_GNU_IFUNC;
      if (const auto version = read_struct<uint16_t>(versions, i * sizeof(uint16_t))) {
        entry.is_default = !(*version & 0x8000);
        const auto named = names.find(*version & 0x7fff);
        // 1 is the file's own name: no version.
        if (named != names.end() && named->first > 1) entry.version = named->second;
      }
      found.push_back(std::move(entry));
    }
    if (!found.empty()) break;
  }
  return found;
}

}  // namespace lockscope
