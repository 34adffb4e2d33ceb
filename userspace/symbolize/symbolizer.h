#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "process/maps.h"
#include "symbolize/frame.h"
#include "symbolize/line_table.h"

namespace lockscope {

/// What an address of a stack is.
enum class AddressKind {
  Exact,   ///< the instruction itself: a leaf, or the frame that a signal interrupted
  Return,  ///< where a call returns to: the call is the instruction before
};

struct SymbolizerOptions {
  /// Symbol tables kept in memory; the least recently used are dropped. The
  /// largest by itself may exceed it.
  size_t max_table_bytes = 64 << 20;
  /// Look for separate debug files (/usr/lib/debug, .gnu_debuglink).
  bool debug_files = true;
  /// Where source lines and inlined functions come from: open_dwarf_lines, or
  /// null for none.
  OpenLines open_lines = nullptr;
  /// Also for files that others than root own. DWARF is read by a library that
  /// is not made for hostile files: for those whom the user trusts.
  bool lines_of_any_owner = false;
};

/// Names addresses of other processes. Tables are loaded when first needed and
/// shared by all processes that map the same file. For use by one thread.
class Symbolizer {
 public:
  explicit Symbolizer(SymbolizerOptions options = {});
  ~Symbolizer();

  /// The frames at `address` of process `pid`, whose mappings are `maps`:
  /// functions inlined there first, then the function itself. At least one;
  /// "module!fn@0xSTART" when only a function's place is known,
  /// "module+0xADDRESS" (as in the file, before relocation) when nothing is.
  /// About 1 µs once the file's table is loaded. The process may be gone if its
  /// files were loaded before, or are still to be found by their path.
  std::vector<Frame> symbolize(pid_t pid, const std::vector<Mapping>& maps, uint64_t address,
                               AddressKind kind);

  /// The build id of a mapped file in hex, empty when there is none.
  std::string build_id(pid_t pid, const Mapping& mapping);

  /// Loads the tables of all code in `maps`, while the process lives.
  void preload(pid_t pid, const std::vector<Mapping>& maps);

  /// Forgets what is known of a process by its pid, which may be used anew.
  void forget(pid_t pid);

  /// Memory used by symbol tables.
  size_t table_bytes() const { return table_bytes_; }

 private:
  struct Module;
  struct JitState;
  struct MappingKey {
    pid_t pid;
    uint64_t start;
    uint64_t file_offset;
    uint64_t inode;
    auto operator<=>(const MappingKey&) const = default;
  };
  // A file as long as nobody writes to it, under one of its names.
  using FileKey = std::tuple<uint64_t, uint64_t, int64_t, int64_t, int64_t, std::string>;

  Module& module_for(pid_t pid, const Mapping& mapping);
  std::shared_ptr<Module> load(pid_t pid, const Mapping& mapping);
  std::shared_ptr<Module> load_vdso();
  void shrink(const Module* keep);
  std::optional<Frame> jit_frame(pid_t pid, uint64_t address);

  SymbolizerOptions options_;
  std::map<MappingKey, std::shared_ptr<Module>> by_mapping_;
  std::map<FileKey, std::shared_ptr<Module>> by_file_;
  std::shared_ptr<Module> vdso_;
  std::map<pid_t, JitState> jit_maps_;
  size_t table_bytes_ = 0;
  size_t cached_addresses_ = 0;
  uint64_t clock_ = 0;  // counts uses, for the least recent one
};

}  // namespace lockscope
