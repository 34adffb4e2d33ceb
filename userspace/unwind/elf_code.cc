#include "unwind/elf_code.h"

#include <elf.h>

#include <algorithm>
#include <cstring>

#include "unwind/byte_cursor.h"

namespace lockscope {
namespace {

// The largest .eh_frame known is that of a browser, about 15 MB.
constexpr uint64_t kMaxSectionBytes = 256u << 20;

}  // namespace

Result<ElfCode> ElfCode::parse(const ByteSource& source) {
  auto bytes = source.read(0, sizeof(Elf64_Ehdr));
  if (!bytes) return bytes.error();
  Elf64_Ehdr header;
  std::memcpy(&header, bytes->data(), sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return failed("not an ELF file");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_machine != EM_X86_64)
    return failed("not an ELF file for x86-64");
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
    return failed("neither a program nor a shared library");
  ElfCode elf;
  elf.source_ = &source;
  if (auto status = elf.read_program_headers(header.e_phoff, header.e_phentsize, header.e_phnum);
      !status)
    return status.error();
  // A file without a section table, or with a damaged one, runs all the same.
  elf.read_section_headers(header.e_shoff, header.e_shentsize, header.e_shnum, header.e_shstrndx);
  return elf;
}

Status ElfCode::read_program_headers(uint64_t offset, uint16_t entry_size, uint16_t count) {
  if (entry_size != sizeof(Elf64_Phdr)) return failed("odd program headers");
  auto bytes = source_->read(offset, uint64_t{count} * entry_size);
  if (!bytes) return bytes.error();
  const uint64_t total = source_->size();
  for (uint16_t i = 0; i < count; ++i) {
    Elf64_Phdr header;
    std::memcpy(&header, bytes->data() + size_t{i} * sizeof header, sizeof header);
    if (header.p_offset > total || header.p_filesz > total - header.p_offset) continue;
    const CodeSegment segment{header.p_offset, header.p_filesz, header.p_vaddr};
    if (segment.address + segment.file_size < segment.address) continue;
    if (header.p_type == PT_GNU_EH_FRAME) eh_frame_header_ = segment;
    if (header.p_type != PT_LOAD || segment.file_size == 0) continue;
    loads_.push_back(segment);
    if (header.p_flags & PF_X) segments_.push_back(segment);
  }
  return {};
}

void ElfCode::read_section_headers(uint64_t offset, uint16_t entry_size, uint16_t count,
                                   uint16_t names) {
  if (entry_size != sizeof(Elf64_Shdr) || names >= count) return;
  auto bytes = source_->read(offset, uint64_t{count} * entry_size);
  if (!bytes) return;
  const auto header_at = [&](size_t i) {
    Elf64_Shdr header;
    std::memcpy(&header, bytes->data() + i * sizeof header, sizeof header);
    return header;
  };
  const Elf64_Shdr text = header_at(names);
  if (text.sh_size > (1u << 20)) return;
  auto name_bytes = source_->read(text.sh_offset, text.sh_size);
  if (!name_bytes || name_bytes->empty()) return;
  names_.assign(name_bytes->begin(), name_bytes->end());
  names_.back() = '\0';
  for (size_t i = 0; i < count; ++i) {
    const Elf64_Shdr header = header_at(i);
    if (header.sh_name >= names_.size()) continue;
    sections_.push_back({header.sh_type, header.sh_flags, header.sh_addr, header.sh_offset,
                         header.sh_size, std::string_view(names_.data() + header.sh_name)});
  }
}

const ElfCode::Header* ElfCode::find(std::string_view name) const {
  const auto found = std::find_if(sections_.begin(), sections_.end(),
                                  [&](const Header& h) { return h.name == name; });
  return found == sections_.end() ? nullptr : &*found;
}

bool ElfCode::has_section(std::string_view name) const { return find(name) != nullptr; }

Result<ElfSection> ElfCode::section(std::string_view name) const {
  const Header* header = find(name);
  if (!header || header->type == SHT_NOBITS || header->size == 0)
    return failed("no " + std::string(name));
  if (header->flags & SHF_COMPRESSED) return failed(std::string(name) + " is compressed");
  if (header->size > kMaxSectionBytes) return failed(std::string(name) + " is too large");
  auto bytes = source_->read(header->offset, header->size);
  if (!bytes) return bytes.error();
  return ElfSection{header->address, std::move(*bytes)};
}

Result<ElfSection> ElfCode::eh_frame() const {
  if (auto found = section(".eh_frame")) return found;
  return eh_frame_by_header();
}

Result<ElfSection> ElfCode::eh_frame_by_header() const {
  // LSB 5.0, 10.6.2: version 1, then the encoding of the pointer to .eh_frame,
  // which linkers write as a 32-bit offset from where it stands.
  constexpr uint8_t kPcRelativeS4 = 0x1b;
  if (eh_frame_header_.file_size < 8) return failed("no .eh_frame");
  auto bytes = source_->read(eh_frame_header_.file_offset, 8);
  if (!bytes) return bytes.error();
  ByteCursor cursor(*bytes);
  if (cursor.u8() != 1 || cursor.u8() != kPcRelativeS4) return failed("odd .eh_frame_hdr");
  cursor.u16();
  const uint64_t address = eh_frame_header_.address + 4 +
                           static_cast<uint64_t>(int64_t{static_cast<int32_t>(cursor.u32())});
  for (const CodeSegment& load : loads_) {
    if (address < load.address || address - load.address >= load.file_size) continue;
    const uint64_t skip = address - load.address;
    const uint64_t size = std::min(load.file_size - skip, kMaxSectionBytes);
    auto section = source_->read(load.file_offset + skip, size);
    if (!section) return section.error();
    return ElfSection{address, std::move(*section)};
  }
  return failed(".eh_frame lies outside of the file");
}

}  // namespace lockscope
