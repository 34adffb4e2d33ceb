#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "parse/file_parser.h"
#include "process/maps.h"
#include "symbolize/debug_file.h"
#include "symbolize/frame.h"

namespace lockscope {

/// What an address of a stack is.
enum class AddressKind {
  Exact,   ///< the instruction itself: a leaf, or the frame that a signal interrupted
  Return,  ///< where a call returns to: the call is the instruction before
};

struct SymbolizerOptions {
  /// Symbol tables kept in the parser's memory; the least recently used are
  /// dropped. The largest by itself may exceed it.
  size_t max_table_bytes = 64 << 20;
  /// Look for separate debug files (/usr/lib/debug, .gnu_debuglink).
  bool debug_files = true;
  /// For files without a symbol table and without a debug file here, when the
  /// first of their addresses is to be named; null for none.
  FetchDebugFile fetch_debug_file = nullptr;
  /// Source lines and inlined functions, from DWARF. (Go code has a table of its
  /// own, which is always read.)
  bool lines = false;
};

/// An address of a process, whose mappings are `maps`.
struct CodeAddress {
  pid_t pid = 0;
  const std::vector<Mapping>* maps = nullptr;
  uint64_t address = 0;
  AddressKind kind = AddressKind::Exact;
};

/// Names addresses of other processes. Tables are loaded when first needed and
/// shared by all processes that map the same file. Files are read by `parser`,
/// which may lose what it has loaded: it is then loaded again. For use by one
/// thread.
class Symbolizer {
 public:
  explicit Symbolizer(FileParser& parser, SymbolizerOptions options = {});
  ~Symbolizer();

  /// The frames at an address: functions inlined there first, then the function
  /// itself. At least one; "module!fn@0xSTART" when only a function's place is
  /// known, "module+0xADDRESS" (as in the file, before relocation) when nothing
  /// is. The process may be gone if its files were loaded before, or are still to
  /// be found by their path. 30 µs if the parser has to be asked.
  std::vector<Frame> symbolize(const CodeAddress& address);

  /// Asks the parser for many addresses at once, about 1 µs each without lines;
  /// symbolize() then knows them (of 64 Ki at a time).
  void prepare(std::span<const CodeAddress> addresses);

  /// The variables of a program and its libraries, those whose code is in `maps`,
  /// that addresses lie in; as many answers, without names for the heap, stacks
  /// and what has no symbol. One question a file.
  std::vector<NamedObject> find_objects(pid_t pid, const std::vector<Mapping>& maps,
                                        std::span<const uint64_t> addresses);

  /// The build id of a mapped file in hex, empty when there is none.
  std::string build_id(pid_t pid, const Mapping& mapping);

  /// Loads the tables of all code in `maps`, while the process lives.
  void preload(pid_t pid, const std::vector<Mapping>& maps);

  /// Forgets what is known of a process by its pid, which may be used anew.
  void forget(pid_t pid);

  /// Memory used by symbol tables, in the parser.
  size_t table_bytes() const { return table_bytes_; }

 private:
  struct Table;
  struct Module;
  struct JitTable;
  struct Place;
  struct MappingKey {
    pid_t pid;
    uint64_t start;
    uint64_t file_offset;
    uint64_t inode;
    auto operator<=>(const MappingKey&) const = default;
  };
  // A file as long as nobody writes to it, under one of its names.
  using FileKey = std::tuple<uint64_t, uint64_t, int64_t, int64_t, int64_t, std::string>;

  Place place_of(const CodeAddress& address);
  std::shared_ptr<Module> module_for(pid_t pid, const Mapping& mapping);
  std::shared_ptr<Module> open(pid_t pid, const Mapping& mapping);
  std::shared_ptr<Module> open_vdso_module();
  void find_sources(pid_t pid, const Mapping& mapping, UniqueFd file, Module& module);
  void fetch_names(pid_t pid, const Mapping& mapping, Module& module);
  std::shared_ptr<JitTable> jit_table(pid_t pid, uint64_t address);
  bool load(Table& table);
  void unload(Table& table);
  void ask(Table& table, const std::vector<uint64_t>& addresses);
  std::vector<NamedObject> ask_objects(Table& table, const std::vector<uint64_t>& addresses);
  void forget_answers();
  void forget_files();
  void shrink(const Table& keep);

  FileParser& parser_;
  SymbolizerOptions options_;
  std::map<MappingKey, std::shared_ptr<Module>> by_mapping_;
  std::map<FileKey, std::shared_ptr<Module>> by_file_;
  std::shared_ptr<Module> vdso_;
  std::map<pid_t, std::shared_ptr<JitTable>> jit_tables_;
  size_t table_bytes_ = 0;
  size_t kept_open_ = 0;  // modules whose files are
  size_t cached_addresses_ = 0;
  uint64_t clock_ = 0;  // counts uses, for the least recent one
};

}  // namespace lockscope
