#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace lockscope {

/// Where the bytes of an ELF file come from: a descriptor or memory. Reads
/// copy: a mapped file that somebody truncates would kill us with SIGBUS.
class ByteSource {
 public:
  /// The file behind `fd`, which must stay open meanwhile.
  static ByteSource of_file(int fd) { return ByteSource(fd, {}); }
  /// The bytes themselves, which must stay where they are meanwhile.
  static ByteSource of_memory(std::span<const uint8_t> bytes) { return ByteSource(-1, bytes); }

  /// `size` bytes from `offset`; fails where the source ends before.
  Result<std::vector<uint8_t>> read(uint64_t offset, uint64_t size) const;

  /// Bytes in all; 0 if that can't be found out.
  uint64_t size() const;

  int fd() const { return fd_; }  ///< -1 for memory
  std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  ByteSource(int fd, std::span<const uint8_t> bytes) : fd_(fd), bytes_(bytes) {}

  int fd_;
  std::span<const uint8_t> bytes_;
};

}  // namespace lockscope
