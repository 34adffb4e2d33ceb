#include "symbolize/elf_links.h"

#include <zlib.h>

#include <cstring>
#include <string>
#include <vector>

namespace lockscope {
namespace {

constexpr uint64_t kMaxChecksummedBytes = 512 << 20;
constexpr uint64_t kMaxLinkBytes = 4096 + 8;
constexpr size_t kMaxNameBytes = 255;

bool is_file_name(const std::string& name) {
  return !name.empty() && name.size() <= kMaxNameBytes && name.find('/') == name.npos &&
         name != "." && name != "..";
}

// A file name, padded with zeros to four bytes, and the CRC.
void read_debug_link(const ElfFile& file, ElfLinks& links) {
  const auto bytes = file.bytes_of(file.find_section(".gnu_debuglink"), kMaxLinkBytes);
  if (!bytes) return;
  const std::string name = bytes->c_str();
  const size_t crc_at = (name.size() + 1 + 3) & ~size_t{3};
  if (!is_file_name(name) || crc_at + sizeof links.debug_link_crc > bytes->size()) return;
  links.debug_link = name;
  std::memcpy(&links.debug_link_crc, bytes->data() + crc_at, sizeof links.debug_link_crc);
}

// A path, of which only the name is taken, and the build id.
void read_supplement_link(const ElfFile& file, ElfLinks& links) {
  const auto bytes = file.bytes_of(file.find_section(".gnu_debugaltlink"), kMaxLinkBytes);
  if (!bytes) return;
  const std::string path = bytes->c_str();
  const std::string name = path.substr(path.rfind('/') + 1);
  if (!is_file_name(name) || path.size() >= bytes->size()) return;
  const std::string_view id = std::string_view(*bytes).substr(path.size() + 1);
  if (id.size() > kMaxBuildIdBytes) return;
  links.supplement = name;
  links.supplement_id = to_hex(id);
}

}  // namespace

ElfLinks read_links(const ElfFile& file) {
  ElfLinks links;
  links.build_id = file.build_id();
  read_debug_link(file, links);
  read_supplement_link(file, links);
  links.has_symbols = file.find_section(SHT_SYMTAB) != nullptr;
  links.has_lines = file.find_section(".debug_info") != nullptr;
  return links;
}

std::optional<uint32_t> file_checksum(const ElfFile& file) {
  if (file.size_bytes() > kMaxChecksummedBytes) return std::nullopt;
  uLong crc = crc32(0, nullptr, 0);
  std::vector<unsigned char> buffer(256 << 10);
  for (uint64_t at = 0; at < file.size_bytes();) {
    const size_t n = file.read_at(at, buffer.data(), buffer.size());
    if (n == 0) return std::nullopt;
    crc = crc32(crc, buffer.data(), static_cast<uInt>(n));
    at += n;
  }
  return static_cast<uint32_t>(crc);
}

}  // namespace lockscope
