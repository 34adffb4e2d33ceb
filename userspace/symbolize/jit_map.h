#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "symbolize/symbol_table.h"

namespace lockscope {

/// Names of code that a run-time system made: /tmp/perf-PID.map, a line
/// "START SIZE NAME" for each function, in hex (perf's documentation,
/// jit-interface.txt). Written by Node (--perf-basic-prof), Java agents,
/// Python 3.12 (-X perf), .NET and others.
class JitMap {
 public:
  /// A map in a file; of one above 64 MiB nothing.
  static JitMap read(int fd);

  /// Lines that do not parse are left out; where functions overlap, code was
  /// replaced and the later line is right.
  static JitMap parse(std::string_view text);

  std::optional<Symbol> find(uint64_t address) const { return table_.find(address); }
  size_t size() const { return table_.size(); }
  size_t size_bytes() const { return table_.size_bytes(); }

 private:
  SymbolTable table_;
};

/// What a map was when it was opened.
struct JitMapStamp {
  int64_t size = -1;
  int64_t mtime_ns = -1;
  uint64_t inode = 0;
  bool operator==(const JitMapStamp&) const = default;
};

/// Opens the map of process `pid`, in its mount namespace and under its pid
/// there. Nothing if there is none, if it is neither that user's nor root's, or
/// still what `stamp` says, which is updated.
std::optional<UniqueFd> open_jit_map(pid_t pid, JitMapStamp* stamp);

}  // namespace lockscope
