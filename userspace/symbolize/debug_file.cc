#include "symbolize/debug_file.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>

namespace lockscope {
namespace {

// A link without build ids makes us read the whole file for its CRC; about
// 1 GB/s.
constexpr uint64_t kMaxChecksummedBytes = 512 << 20;
constexpr uint64_t kMaxDebugLinkBytes = 4096 + 8;
constexpr size_t kMinBuildIdDigits = 8;

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

struct DebugLink {
  std::string name;
  uint32_t crc = 0;
};

std::optional<DebugLink> debug_link(const ElfFile& elf) {
  const auto bytes = elf.bytes_of(elf.find_section(".gnu_debuglink"), kMaxDebugLinkBytes);
  if (!bytes) return std::nullopt;
  // A file name, padded with zeros to four bytes, and the CRC.
  DebugLink link{bytes->c_str()};
  const size_t crc_at = (link.name.size() + 1 + 3) & ~size_t{3};
  if (link.name.empty() || link.name.find('/') != std::string::npos || link.name == ".." ||
      crc_at + sizeof link.crc > bytes->size()) {
    return std::nullopt;
  }
  std::memcpy(&link.crc, bytes->data() + crc_at, sizeof link.crc);
  return link;
}

bool has_crc(const ElfFile& file, uint32_t expected) {
  if (file.size_bytes() > kMaxChecksummedBytes) return false;
  uLong crc = crc32(0, nullptr, 0);
  std::vector<unsigned char> buffer(256 << 10);
  for (uint64_t at = 0; at < file.size_bytes();) {
    const size_t n = file.read_at(at, buffer.data(), buffer.size());
    if (n == 0) return false;
    crc = crc32(crc, buffer.data(), static_cast<uInt>(n));
    at += n;
  }
  return crc == expected;
}

std::optional<ElfFile> open_elf(const std::string& root, const std::string& path) {
  auto fd = open_in_root(root, path);
  if (!fd) return std::nullopt;
  auto file = ElfFile::open(std::move(*fd));
  if (!file) return std::nullopt;
  return std::move(*file);
}

}  // namespace

Result<UniqueFd> open_in_root(const std::string& root, const std::string& path) {
  UniqueFd directory(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return failed("cannot open " + root + ": " + std::strerror(errno));
  // O_PATH first: opening some devices has effects, and a FIFO waits.
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  UniqueFd file(
      static_cast<int>(::syscall(SYS_openat2, directory.get(), path.c_str(), &how, sizeof how)));
  struct stat st;
  if (!file || ::fstat(file.get(), &st) != 0) {
    return failed("cannot open " + path + ": " + std::strerror(errno));
  }
  if (!S_ISREG(st.st_mode)) return failed(path + " is no regular file");
  UniqueFd fd(::open(("/proc/self/fd/" + std::to_string(file.get())).c_str(),
                     O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return failed("cannot open " + path + ": " + std::strerror(errno));
  return fd;
}

std::optional<ElfFile> find_debug_file(const ElfFile& elf, const std::string& path,
                                       const std::vector<std::string>& roots) {
  const std::string id = elf.build_id();
  const auto link = debug_link(elf);
  for (const std::string& root : roots) {
    if (id.size() > kMinBuildIdDigits) {
      auto file = open_elf(
          root, "/usr/lib/debug/.build-id/" + id.substr(0, 2) + "/" + id.substr(2) + ".debug");
      if (file && file->build_id() == id) return file;
    }
    if (!link) continue;
    const std::string directory = directory_of(path);
    for (const std::string& candidate :
         {directory + "/" + link->name, directory + "/.debug/" + link->name,
          "/usr/lib/debug" + directory + "/" + link->name}) {
      auto file = open_elf(root, candidate);
      if (!file) continue;
      const std::string its_id = file->build_id();
      const bool belongs =
          !id.empty() && !its_id.empty() ? id == its_id : has_crc(*file, link->crc);
      if (belongs) return file;
    }
  }
  return std::nullopt;
}

}  // namespace lockscope
