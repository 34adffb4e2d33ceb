#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "symbolize/frame.h"
#include "unwind/cfa_table.h"
#include "uprobe/probe_plan.h"

namespace lockscope {

/// Where a file says that a separate file of it is, by name; all lower-case hex
/// and without a directory, or else empty.
struct ElfLinks {
  std::string build_id;
  std::string debug_link;  ///< .gnu_debuglink
  uint32_t debug_link_crc = 0;
  std::string supplement;     ///< .gnu_debugaltlink: what dwz(1) moved elsewhere
  std::string supplement_id;  ///< its build id
  bool has_symbols = false;   ///< .symtab
  bool has_lines = false;     ///< .debug_info
};

/// Compilers that leave their mark.
enum class Compiler : uint8_t { Other = 0, Go = 1, Rust = 2 };

/// The files that symbols are loaded from; -1 for those that there are not.
struct SymbolSources {
  int file = -1;
  int debug_file = -1;
  int supplement = -1;
  bool lines = false;  ///< also source lines and inlined functions, of DWARF

  bool operator==(const SymbolSources&) const = default;
};

/// Loaded symbols, as long as the parser holds them. 0 is none.
using SymbolsId = uint32_t;

struct LoadedSymbols {
  /// What of a file is loaded where.
  struct Segment {
    uint64_t file_offset = 0;
    uint64_t size = 0;
    uint64_t address = 0;
    uint64_t memory_size = 0;  ///< `size`, and zeros
  };

  SymbolsId id = 0;
  uint64_t table_bytes = 0;  ///< memory taken
  uint64_t count = 0;
  /// Whether functions have names throughout: from a symbol table, here, embedded
  /// or in a debug file, or from Go's own.
  bool has_names = false;
  std::vector<Segment> segments;  ///< code first
};

/// What is at an address.
struct Names {
  /// Innermost first, without modules. The last is the function itself, its
  /// name is empty if there is none; no frames: nothing is known.
  std::vector<Frame> frames;
  /// Where the function begins, if that is all that is known of it; else 0.
  uint64_t nameless_start = 0;
};

/// A place in a variable; without a name, in none.
struct NamedObject {
  std::string name;     ///< demangled
  uint64_t offset = 0;  ///< bytes into it
};

/// Everything that is read out of files of traced processes. They are hostile:
/// lockscope uses SandboxedParser, which has a process without rights do it.
/// LocalParser is what that process uses.
///
/// Descriptors stay the caller's. They must be of regular files, open for
/// reading only. For use by one thread.
class FileParser {
 public:
  virtual ~FileParser() = default;

  /// How to unwind from every instruction: build_cfa_table().
  virtual Result<CfaTable> unwind_table(int fd) = 0;

  virtual Result<ElfLinks> links(int fd) = 0;
  /// CRC-32 of the whole file, as .gnu_debuglink has it. About 1 GB/s.
  virtual Result<uint32_t> checksum(int fd) = 0;
  virtual Result<Compiler> compiler(int fd) = 0;

  /// Where to place uprobes in a libc: plan_probes().
  virtual Result<ProbePlan> probe_plan(int fd) = 0;

  /// Loads the functions and variables of an ELF file.
  virtual Result<LoadedSymbols> load_symbols(const SymbolSources& sources) = 0;
  /// Loads the functions of a JIT map: see JitMap.
  virtual Result<LoadedSymbols> load_jit_map(int fd) = 0;
  /// What is at these addresses (as in the file, before relocation); as many
  /// answers as addresses. Fails if the symbols are not held any more.
  virtual Result<std::vector<Names>> find(SymbolsId id, std::span<const uint64_t> addresses) = 0;
  /// The variables, of those that can be written to, that these addresses are
  /// in; otherwise as find().
  virtual Result<std::vector<NamedObject>> find_objects(SymbolsId id,
                                                        std::span<const uint64_t> addresses) = 0;
  virtual bool holds(SymbolsId id) = 0;
  virtual void unload(SymbolsId id) = 0;
};

}  // namespace lockscope
