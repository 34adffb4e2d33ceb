#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace lockscope {

/// Where execution goes after an instruction.
enum class Flow : uint8_t {
  Next,      ///< on to the next one
  Branch,    ///< there, or to `target`
  Jump,      ///< to `target`
  Call,      ///< to `target`, and back to the next one
  Elsewhere, ///< returns, indirect jumps, traps: where to is not written here
};

/// What matters of one machine instruction to a uprobe on it.
struct Instruction {
  uint64_t address = 0;
  uint32_t length = 0;
  Flow flow = Flow::Next;
  uint64_t target = 0;  ///< Branch, Jump, Call; 0: not written here
  /// The kernel emulates it rather than let the thread step over a copy of it,
  /// which costs 10 µs more: arch/x86/kernel/uprobes.c, alike since 4.18.
  bool emulated = false;
  /// The kernel takes a uprobe on it.
  bool probeable = true;
  /// Which of the first four argument registers of a function it writes to, bit
  /// 0 for the first.
  uint8_t writes_arguments = 0;
  /// Read-modify-write of the first argument's target by which a lock is tried;
  /// the zero flag says whether it was taken.
  bool tries_lock = false;

  uint64_t end() const { return address + length; }
};

/// Machine code at its addresses: the one file that knows an instruction set.
class Code {
 public:
  /// Bytes that are loaded at an address; executable ones.
  void add(uint64_t address, std::string bytes);

  /// The instruction at an address; nothing if there is no such.
  std::optional<Instruction> at(uint64_t address) const;
  /// It, as a disassembler writes it.
  std::string text_at(uint64_t address) const;

 private:
  struct Block {
    uint64_t address;
    std::string bytes;
  };

  std::span<const uint8_t> bytes_at(uint64_t address) const;

  std::vector<Block> blocks_;
};

}  // namespace lockscope
