#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "symbolize/elf_file.h"
#include "symbolize/go_module.h"

namespace lockscope {

/// A function in Go's table. Tables of values by address (`stack`, ...) are
/// numbers that each_value() and value_at() take; 0 is the empty one.
struct GoFunction {
  /// The runtime's abi.FuncFlag.
  enum Flag : uint8_t {
    TopFrame = 1 << 0,  ///< the outermost of its stack
    SpWrite = 1 << 1,   ///< sets the stack pointer: goes to another stack
    Asm = 1 << 2,       ///< written in assembly
  };

  uint64_t start = 0;  ///< address
  uint64_t end = 0;
  uint32_t name = 0;     ///< for GoPclntab::name()
  uint32_t stack = 0;    ///< values: bytes by which the stack pointer is below the return address
  uint32_t files = 0;    ///< values: for GoPclntab::source_file()
  uint32_t lines = 0;    ///< values: line numbers
  uint32_t inlined = 0;  ///< values: for GoPclntab::inlined_call(), -1 for none
  uint64_t inline_tree = 0;  ///< address; 0: none
  uint32_t unit = 0;
  uint8_t flags = 0;
};

/// A call that was inlined into a function.
struct GoInlinedCall {
  uint32_t name = 0;
  uint64_t call_site = 0;  ///< an address of the caller's, at the line of the call
};

/// Go's own table of functions (runtime.pclntab), which also stripped programs
/// carry: Go 1.18 and later. Nothing is kept of it: every question is answered
/// from the file, 10 to 30 reads (3 to 10 µs).
///
/// The file belongs to a traced process: every place is checked, every loop
/// bounded by what is there.
class GoPclntab {
 public:
  /// Nothing when the file has none, it is of another version, or it cannot be
  /// told where the code begins that it describes.
  static std::optional<GoPclntab> load(ElfFile file);

  /// How many functions there are, by ascending address.
  uint64_t size() const { return functions_; }
  std::optional<GoFunction> function(uint64_t index) const;
  /// The function that holds `address`.
  std::optional<GoFunction> find(uint64_t address) const;

  std::string name(uint32_t offset) const;
  /// The path that value `number` of a function's `files` means.
  std::string source_file(const GoFunction& function, int32_t number) const;
  std::optional<GoInlinedCall> inlined_call(const GoFunction& function, int32_t index) const;

  /// Calls `use(start, end, value)` for each range of the function's addresses
  /// in turn, until that returns false.
  void each_value(const GoFunction& function, uint32_t values,
                  const std::function<bool(uint64_t, uint64_t, int32_t)>& use) const;
  std::optional<int32_t> value_at(const GoFunction& function, uint32_t values,
                                  uint64_t address) const;

  /// Reads the table into memory: for those who go through all of it.
  void hold();

  const ElfFile& file() const { return file_; }

 private:
  GoPclntab(ElfFile file, const GoTablePlace& place) : file_(std::move(file)), place_(place) {}
  bool read_header();
  bool find_code();
  bool describes_code_at(uint64_t text) const;
  void find_inline_trees(const std::vector<uint64_t>& module_data);
  bool has_inline_trees_at(uint64_t base) const;

  size_t read(uint64_t at, void* buffer, size_t size) const;
  template <class T>
  T number_at(uint64_t at) const;
  std::string text_at(uint64_t at) const;

  ElfFile file_;
  GoTablePlace place_;
  std::string held_;        // all of it, once asked to hold()
  bool is_118_ = false;     // the layout of Go 1.18 and 1.19
  uint64_t functions_ = 0;  // how many
  uint64_t names_at_ = 0;   // places in the table
  uint64_t units_at_ = 0;
  uint64_t files_at_ = 0;
  uint64_t values_at_ = 0;
  uint64_t functab_at_ = 0;
  uint64_t text_ = 0;          // address of the code that offset 0 means
  uint64_t inline_trees_ = 0;  // address that inline trees count from; 0: not known
};

}  // namespace lockscope
