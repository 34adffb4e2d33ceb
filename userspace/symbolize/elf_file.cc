#include "symbolize/elf_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "base/file_status.h"

namespace lockscope {
namespace {

// Real files stay far below: libLLVM has 40 sections, a build with
// -ffunction-sections that was never linked some ten thousand.
constexpr uint64_t kMaxSections = 1 << 16;
constexpr uint64_t kMaxSegments = 4096;
constexpr uint64_t kMaxSectionNamesBytes = 4 << 20;
constexpr uint64_t kMaxNotesBytes = 64 << 10;

uint64_t align4(uint64_t n) { return (n + 3) & ~uint64_t{3}; }

}  // namespace

std::string to_hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

Result<ElfFile> ElfFile::open(UniqueFd fd) {
  struct stat st;
  if (file_status(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) return failed("not a regular file");
  ElfFile file;
  file.fd_ = std::move(fd);
  file.size_ = static_cast<uint64_t>(st.st_size);
  if (Status status = file.parse(); !status) return status.error();
  return file;
}

Result<ElfFile> ElfFile::from_memory(std::string image) {
  ElfFile file;
  file.image_ = std::move(image);
  file.size_ = file.image_.size();
  if (Status status = file.parse(); !status) return status.error();
  return file;
}

Result<ElfFile> ElfFile::duplicate() const {
  if (!fd_) return from_memory(image_);
  return open(UniqueFd(::dup(fd_.get())));  // what the sandbox allows
}

Status ElfFile::parse() {
  if (read_at(0, &header_, sizeof header_) != sizeof header_ ||
      std::memcmp(header_.e_ident, ELFMAG, SELFMAG) != 0 ||
      header_.e_ident[EI_CLASS] != ELFCLASS64 || header_.e_ident[EI_DATA] != ELFDATA2LSB) {
    return failed("not a 64-bit little-endian ELF file");
  }

  if (header_.e_phentsize == sizeof(Elf64_Phdr) && header_.e_phnum <= kMaxSegments) {
    const uint64_t size = header_.e_phnum * sizeof(Elf64_Phdr);
    if (auto bytes = bytes_at(header_.e_phoff, size, size)) {
      segments_.resize(header_.e_phnum);
      std::memcpy(segments_.data(), bytes->data(), size);
    }
  }

  // A file without (usable) section headers is still good for its segments.
  if (header_.e_shoff == 0 || header_.e_shentsize != sizeof(Elf64_Shdr)) return {};
  Elf64_Shdr first;
  if (!bytes_at(header_.e_shoff, sizeof first, sizeof first) ||
      read_at(header_.e_shoff, &first, sizeof first) != sizeof first) {
    return {};
  }
  // Numbers that do not fit the header are in the first section (elf(5)).
  const uint64_t count = header_.e_shnum != 0 ? header_.e_shnum : first.sh_size;
  const uint64_t names_index =
      header_.e_shstrndx == SHN_XINDEX ? first.sh_link : header_.e_shstrndx;
  if (count > kMaxSections) return {};
  const auto table = bytes_at(header_.e_shoff, count * sizeof first, kMaxSections * sizeof first);
  if (!table) return {};
  sections_.resize(count);
  for (uint64_t i = 0; i < count; ++i) {
    std::memcpy(&sections_[i].header, table->data() + i * sizeof first, sizeof first);
  }

  if (names_index >= count) return {};
  const auto names = bytes_of(&sections_[names_index], kMaxSectionNamesBytes);
  if (!names) return {};
  section_names_.assign(names->begin(), names->end());
  section_names_.push_back('\0');
  for (Section& section : sections_) {
    if (section.header.sh_name < section_names_.size()) {
      section.name = section_names_.data() + section.header.sh_name;
    }
  }
  return {};
}

const ElfFile::Section* ElfFile::find_section(std::string_view name) const {
  for (const Section& section : sections_) {
    if (section.name == name) return &section;
  }
  return nullptr;
}

const ElfFile::Section* ElfFile::find_section(uint32_t type) const {
  for (const Section& section : sections_) {
    if (section.header.sh_type == type) return &section;
  }
  return nullptr;
}

std::optional<uint64_t> ElfFile::address_of_offset(uint64_t offset) const {
  std::optional<uint64_t> found;
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_LOAD || offset < segment.p_offset) continue;
    const uint64_t into = offset - segment.p_offset;
    if (into >= segment.p_filesz) continue;
    if (segment.p_flags & PF_X) return segment.p_vaddr + into;
    if (!found) found = segment.p_vaddr + into;
  }
  return found;
}

std::optional<uint64_t> ElfFile::offset_of_address(uint64_t address) const {
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_LOAD || address < segment.p_vaddr) continue;
    const uint64_t into = address - segment.p_vaddr;
    if (into < segment.p_filesz) return segment.p_offset + into;
  }
  return std::nullopt;
}

bool ElfFile::is_code(uint64_t address) const {
  return std::any_of(segments_.begin(), segments_.end(), [&](const Elf64_Phdr& segment) {
    return segment.p_type == PT_LOAD && (segment.p_flags & PF_X) && address >= segment.p_vaddr &&
           address - segment.p_vaddr < segment.p_memsz;
  });
}

uint64_t ElfFile::base_address() const {
  uint64_t base = std::numeric_limits<uint64_t>::max();
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type == PT_LOAD) base = std::min<uint64_t>(base, segment.p_vaddr);
  }
  return base == std::numeric_limits<uint64_t>::max() ? 0 : base;
}

std::string ElfFile::build_id() const {
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_NOTE) continue;
    if (auto id = build_id_in(segment.p_offset, segment.p_filesz); !id.empty()) return id;
  }
  // Separate debug files keep the note's section, but their segments may not
  // say where.
  for (const Section& section : sections_) {
    if (section.header.sh_type != SHT_NOTE) continue;
    if (auto id = build_id_in(section.header.sh_offset, section.header.sh_size); !id.empty()) {
      return id;
    }
  }
  return {};
}

std::string ElfFile::build_id_in(uint64_t offset, uint64_t size) const {
  const auto notes = bytes_at(offset, size, kMaxNotesBytes);
  if (!notes) return {};
  for (uint64_t at = 0; at + sizeof(Elf64_Nhdr) <= notes->size();) {
    Elf64_Nhdr note;
    std::memcpy(&note, notes->data() + at, sizeof note);
    const uint64_t name = at + sizeof note;
    const uint64_t data = name + align4(note.n_namesz);
    const uint64_t next = data + align4(note.n_descsz);
    if (data > notes->size() || note.n_descsz > notes->size() - data) return {};
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && note.n_descsz > 0 &&
        note.n_descsz <= kMaxBuildIdBytes && std::memcmp(notes->data() + name, "GNU", 4) == 0) {
      return to_hex(std::string_view(*notes).substr(data, note.n_descsz));
    }
    at = next;
  }
  return {};
}

size_t ElfFile::read_at(uint64_t offset, void* buffer, size_t size) const {
  if (offset >= size_) return 0;
  size = std::min<uint64_t>(size, size_ - offset);
  if (!fd_) {
    std::memcpy(buffer, image_.data() + offset, size);
    return size;
  }
  size_t done = 0;
  while (done < size) {
    const ssize_t n = ::pread(fd_.get(), static_cast<char*>(buffer) + done, size - done,
                              static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

std::optional<std::string> ElfFile::bytes_at(uint64_t offset, uint64_t size, uint64_t cap) const {
  if (size == 0 || size > cap || offset > size_ || size > size_ - offset) return std::nullopt;
  std::string bytes(size, '\0');
  if (read_at(offset, bytes.data(), size) != size) return std::nullopt;
  return bytes;
}

std::optional<std::string> ElfFile::bytes_of(const Section* section, uint64_t cap) const {
  if (!section || section->header.sh_type == SHT_NOBITS ||
      (section->header.sh_flags & SHF_COMPRESSED)) {
    return std::nullopt;
  }
  return bytes_at(section->header.sh_offset, section->header.sh_size, cap);
}

}  // namespace lockscope
