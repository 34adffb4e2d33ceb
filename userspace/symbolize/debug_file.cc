#include "symbolize/debug_file.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace lockscope {
namespace {

constexpr size_t kMinBuildIdDigits = 8;
constexpr const char* kDebugDirectory = "/usr/lib/debug";

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

std::string path_of_build_id(const std::string& id) {
  return std::string(kDebugDirectory) + "/.build-id/" + id.substr(0, 2) + "/" + id.substr(2) +
         ".debug";
}

// The traced process had its say in the path: what is no ELF file is none of
// the parser's business.
UniqueFd open_elf(const std::string& root, const std::string& path) {
  auto fd = open_in_root(root, path);
  char magic[SELFMAG];
  if (!fd || ::pread(fd->get(), magic, sizeof magic, 0) != sizeof magic ||
      std::memcmp(magic, ELFMAG, sizeof magic) != 0) {
    return UniqueFd();
  }
  return std::move(*fd);
}

bool has_build_id(FileParser& parser, const UniqueFd& file, const std::string& id) {
  const auto links = file ? parser.links(file.get()) : failed("no file");
  return links && links->build_id == id;
}

bool belongs(FileParser& parser, const UniqueFd& file, const ElfLinks& links) {
  if (!file) return false;
  const auto its = parser.links(file.get());
  if (!its) return false;
  if (!links.build_id.empty() && !its->build_id.empty()) return its->build_id == links.build_id;
  const auto checksum = parser.checksum(file.get());
  return checksum && *checksum == links.debug_link_crc;
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

UniqueFd find_debug_file(FileParser& parser, const ElfLinks& links, const std::string& path,
                         const std::vector<std::string>& roots) {
  const std::string& id = links.build_id;
  for (const std::string& root : roots) {
    if (id.size() > kMinBuildIdDigits) {
      UniqueFd file = open_elf(root, path_of_build_id(id));
      if (has_build_id(parser, file, id)) return file;
    }
    if (links.debug_link.empty()) continue;
    const std::string directory = directory_of(path);
    for (const std::string& candidate :
         {directory + "/" + links.debug_link, directory + "/.debug/" + links.debug_link,
          kDebugDirectory + directory + "/" + links.debug_link}) {
      UniqueFd file = open_elf(root, candidate);
      if (belongs(parser, file, links)) return file;
    }
  }
  return UniqueFd();
}

UniqueFd find_supplement(FileParser& parser, const ElfLinks& links,
                         const std::vector<std::string>& roots) {
  const std::string& id = links.supplement_id;
  if (id.size() <= kMinBuildIdDigits) return UniqueFd();
  const std::string directory = std::string(kDebugDirectory) + "/.dwz/";
  for (const std::string& root : roots) {
    // Debian's place, Fedora's, and everybody's.
    for (const std::string& candidate : {directory + "x86_64-linux-gnu/" + links.supplement,
                                         directory + links.supplement, path_of_build_id(id)}) {
      UniqueFd file = open_elf(root, candidate);
      if (has_build_id(parser, file, id)) return file;
    }
  }
  return UniqueFd();
}

}  // namespace lockscope
