#pragma once

#include <elf.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace lockscope {

/// Build ids are 20 bytes (SHA-1), 16 (MD5, UUID) or 8 (xxhash).
inline constexpr uint32_t kMaxBuildIdBytes = 64;

/// Bytes in lower-case hex.
std::string to_hex(std::string_view bytes);

/// Reads the pieces of a 64-bit little-endian ELF file that symbolization
/// needs, from a file or from memory.
///
/// The file belongs to a traced process, and we are root: nothing in it is
/// believed. Own parsing over pread(2), not libelf and not mmap: a mapped file
/// that its owner truncates kills the reader with SIGBUS, and a few bounds
/// checks are less to trust than a large library. Only what is asked for is
/// read, never more than the file holds, never more than a cap.
class ElfFile {
 public:
  struct Section {
    std::string_view name;  ///< valid as long as the ElfFile
    Elf64_Shdr header;
  };

  /// Takes the descriptor. Fails when it is no regular file or no such ELF.
  static Result<ElfFile> open(UniqueFd fd);
  /// For images that are no files, such as the vdso.
  static Result<ElfFile> from_memory(std::string image);
  /// The same file again, with a descriptor of its own.
  Result<ElfFile> duplicate() const;

  /// -1 for an image in memory.
  int fd() const { return fd_.get(); }
  const Elf64_Ehdr& header() const { return header_; }
  const std::vector<Elf64_Phdr>& segments() const { return segments_; }
  const std::vector<Section>& sections() const { return sections_; }
  const Section* find_section(std::string_view name) const;
  const Section* find_section(uint32_t type) const;
  uint64_t size_bytes() const { return size_; }

  /// The virtual address of the byte at `offset` in the file, preferring an
  /// executable segment where two share a page; nothing if it is not loaded.
  std::optional<uint64_t> address_of_offset(uint64_t offset) const;
  /// The inverse, for bytes that the file holds.
  std::optional<uint64_t> offset_of_address(uint64_t address) const;
  /// Whether `address` is inside an executable segment.
  bool is_code(uint64_t address) const;
  /// The lowest address that is loaded, 0 for shared libraries and PIEs.
  uint64_t base_address() const;

  /// The build id as lower-case hex, empty when there is none.
  std::string build_id() const;

  /// Up to `size` bytes at `offset`; what is actually there.
  size_t read_at(uint64_t offset, void* buffer, size_t size) const;
  /// `size` bytes at `offset`, or nothing if there are fewer or more than `cap`.
  std::optional<std::string> bytes_at(uint64_t offset, uint64_t size, uint64_t cap) const;
  /// A section's bytes; nothing for an absent, empty, compressed or oversized one.
  std::optional<std::string> bytes_of(const Section* section, uint64_t cap) const;

 private:
  ElfFile() = default;
  Status parse();
  std::string build_id_in(uint64_t offset, uint64_t size) const;

  UniqueFd fd_;
  std::string image_;  // used when fd_ is not open
  uint64_t size_ = 0;
  Elf64_Ehdr header_{};
  std::vector<Elf64_Phdr> segments_;
  std::vector<Section> sections_;
  // The names of all sections. A vector, because moving a short std::string
  // would move its bytes and leave the views in sections_ behind.
  std::vector<char> section_names_;
};

}  // namespace lockscope
