#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace lockscope {

/// One line of /proc/PID/maps: a range of a process's addresses and the file
/// behind it.
struct Mapping {
  uint64_t start = 0;        ///< first address
  uint64_t end = 0;          ///< one past the last address
  uint64_t file_offset = 0;  ///< bytes into the file at `start`
  uint64_t inode = 0;        ///< 0 for anonymous memory
  uint32_t dev_major = 0;
  uint32_t dev_minor = 0;
  bool readable = false;
  bool writable = false;
  bool executable = false;
  bool shared = false;   ///< MAP_SHARED
  bool deleted = false;  ///< the file has no name any more
  /// As seen by the process (its own mount namespace), without " (deleted)";
  /// "[vdso]", "[heap]" and the like for special mappings; empty if anonymous.
  std::string path;

  bool has_file() const { return inode != 0 && !path.empty() && path[0] == '/'; }
  bool contains(uint64_t address) const { return address >= start && address < end; }
};

/// Parses the text of /proc/PID/maps. Lines that do not parse are left out;
/// the result is sorted by address, as the kernel writes it. Paths are
/// controlled by the traced process; the kernel escapes newlines as \012.
std::vector<Mapping> parse_maps(std::string_view text);

/// Reads /proc/PID/maps. Fails when the process is gone or not ours to read.
Result<std::vector<Mapping>> read_maps(pid_t pid);

/// The mapping that holds `address`, or nullptr. `maps` is sorted.
const Mapping* find_mapping(const std::vector<Mapping>& maps, uint64_t address);

/// Opens the very file that the process has mapped: through
/// /proc/PID/map_files (right for deleted and replaced files and for other
/// mount namespaces), else through /proc/PID/root if device and inode agree.
Result<UniqueFd> open_mapped_file(pid_t pid, const Mapping& mapping);

/// Reads a whole small file such as those in /proc. Fails as open(2) does.
Result<std::string> read_file(const std::string& path);

}  // namespace lockscope
