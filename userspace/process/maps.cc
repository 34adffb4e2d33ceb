#include "process/maps.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

namespace lockscope {
namespace {

template <class T>
bool take_number(std::string_view& text, T& value, int base, char terminator) {
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{}) return false;
  size_t used = static_cast<size_t>(end - text.data());
  if (used >= text.size() || text[used] != terminator) return false;
  text.remove_prefix(used + 1);
  return true;
}

// "start-end perms offset major:minor inode      path"
std::optional<Mapping> parse_line(std::string_view line) {
  Mapping mapping;
  if (!take_number(line, mapping.start, 16, '-')) return {};
  if (!take_number(line, mapping.end, 16, ' ')) return {};
  if (line.size() < 5) return {};
  mapping.readable = line[0] == 'r';
  mapping.writable = line[1] == 'w';
  mapping.executable = line[2] == 'x';
  mapping.shared = line[3] == 's';
  line.remove_prefix(5);
  if (!take_number(line, mapping.file_offset, 16, ' ')) return {};
  if (!take_number(line, mapping.dev_major, 16, ':')) return {};
  if (!take_number(line, mapping.dev_minor, 16, ' ')) return {};
  const auto [end, error] =
      std::from_chars(line.data(), line.data() + line.size(), mapping.inode, 10);
  if (error != std::errc{}) return {};
  line.remove_prefix(static_cast<size_t>(end - line.data()));
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  constexpr std::string_view kDeleted = " (deleted)";
  if (line.ends_with(kDeleted)) {
    mapping.deleted = true;
    line.remove_suffix(kDeleted.size());
  }
  mapping.path = line;
  return mapping;
}

// The file that a place-holder (O_PATH) stands for, opened for reading if it is
// the mapped one. Looked at before it is opened: the traced process chooses the
// path, and opening a device does things.
Result<UniqueFd> open_checked(const UniqueFd& place, const Mapping& mapping) {
  const Error failure = failed("cannot open the file mapped as " + mapping.path);
  struct stat info {};
  if (!place || ::fstat(place.get(), &info) != 0 || !S_ISREG(info.st_mode)) return failure;
  // Overlay and btrfs report another device in stat than in maps: the inode
  // is what both agree on.
  if (info.st_ino != mapping.inode) return failure;
  UniqueFd fd(::open(("/proc/self/fd/" + std::to_string(place.get())).c_str(),
                     O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return failure;
  return fd;
}

// A path below a process's root, which links can't lead out of.
UniqueFd place_below(const std::string& root, const std::string& path) {
  const UniqueFd directory(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  open_how how {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  return UniqueFd(static_cast<int>(
      ::syscall(SYS_openat2, directory.get(), path.c_str(), &how, sizeof how)));
}

}  // namespace

std::vector<Mapping> parse_maps(std::string_view text) {
  std::vector<Mapping> maps;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    if (auto mapping = parse_line(text.substr(0, end))) maps.push_back(std::move(*mapping));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return maps;
}

Result<std::string> read_file(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return failed("cannot open " + path + ": " + std::strerror(errno));
  std::string text;
  char buffer[16384];
  while (true) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed("cannot read " + path + ": " + std::strerror(errno));
    if (n == 0) return text;
    text.append(buffer, static_cast<size_t>(n));
  }
}

Result<std::vector<Mapping>> read_maps(pid_t pid) {
  auto text = read_file("/proc/" + std::to_string(pid) + "/maps");
  if (!text) return text.error();
  return parse_maps(*text);
}

const Mapping* find_mapping(const std::vector<Mapping>& maps, uint64_t address) {
  auto after = std::upper_bound(maps.begin(), maps.end(), address,
                                [](uint64_t a, const Mapping& m) { return a < m.start; });
  if (after == maps.begin()) return nullptr;
  const Mapping& mapping = *std::prev(after);
  return mapping.contains(address) ? &mapping : nullptr;
}

Result<UniqueFd> open_mapped_file(pid_t pid, const Mapping& mapping) {
  const std::string proc = "/proc/" + std::to_string(pid);
  char range[64];
  std::snprintf(range, sizeof range, "/map_files/%llx-%llx",
                static_cast<unsigned long long>(mapping.start),
                static_cast<unsigned long long>(mapping.end));
  const UniqueFd mapped(::open((proc + range).c_str(), O_PATH | O_CLOEXEC));
  if (auto fd = open_checked(mapped, mapping)) return fd;
  return open_checked(place_below(proc + "/root", mapping.path), mapping);
}

}  // namespace lockscope
