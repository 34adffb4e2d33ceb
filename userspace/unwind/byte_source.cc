#include "unwind/byte_source.h"

#include <unistd.h>

#include <cerrno>

#include "base/file_status.h"

namespace lockscope {

uint64_t ByteSource::size() const {
  if (fd_ < 0) return bytes_.size();
  struct stat info {};
  if (file_status(fd_, &info) != 0 || info.st_size < 0) return 0;
  return static_cast<uint64_t>(info.st_size);
}

Result<std::vector<uint8_t>> ByteSource::read(uint64_t offset, uint64_t size) const {
  // Checked before memory is taken: sizes come from the file.
  const uint64_t total = this->size();
  if (offset > total || size > total - offset) return failed("file is shorter than it says");
  if (fd_ < 0) {
    const auto part = bytes_.subspan(offset, size);
    return std::vector<uint8_t>(part.begin(), part.end());
  }
  std::vector<uint8_t> data(size);
  uint64_t done = 0;
  while (done < size) {
    const ssize_t n =
        ::pread(fd_, data.data() + done, size - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed("file is shorter than it says");
    done += static_cast<uint64_t>(n);
  }
  return data;
}

}  // namespace lockscope
