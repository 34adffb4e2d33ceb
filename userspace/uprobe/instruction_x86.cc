#include <Zydis/Zydis.h>

#include <algorithm>
#include <array>

#include "uprobe/instruction.h"

namespace lockscope {
namespace {

constexpr std::array kArguments = {ZYDIS_REGISTER_RDI, ZYDIS_REGISTER_RSI, ZYDIS_REGISTER_RDX,
                                   ZYDIS_REGISTER_RCX};

struct Decoded {
  ZydisDecodedInstruction instruction;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;

  std::span<const ZydisDecodedOperand> all() const {
    return {operands.data(), instruction.operand_count};
  }
};

std::optional<Decoded> decode(std::span<const uint8_t> bytes) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  Decoded decoded;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes.data(), bytes.size(),
                                           &decoded.instruction, decoded.operands.data()))) {
    return std::nullopt;
  }
  return decoded;
}

// Legacy prefixes, beside REX.
bool has_prefixes(const ZydisDecodedInstruction& instruction) {
  const auto& raw = instruction.raw;
  return std::any_of(raw.prefixes, raw.prefixes + raw.prefix_count,
                     [](const auto& prefix) { return (prefix.value & 0xf0) != 0x40; });
}

// branch_setup_xol_ops() and push_setup_xol_ops(): push of a register, nop, jmp,
// jcc and call, by their shortest names.
bool is_emulated(const ZydisDecodedInstruction& instruction) {
  if (has_prefixes(instruction)) return false;
  const uint8_t opcode = instruction.opcode;
  if (instruction.opcode_map == ZYDIS_OPCODE_MAP_0F) return opcode >= 0x80 && opcode <= 0x8f;
  if (instruction.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) return false;
  if (opcode >= 0x50 && opcode <= 0x57) return instruction.length <= 2;
  if (opcode == 0x90) return instruction.length == 1;
  return (opcode >= 0x70 && opcode <= 0x7f) || opcode == 0xe8 || opcode == 0xe9 || opcode == 0xeb;
}

// is_prefix_bad() and the opcodes that uprobe_init_insn() refuses; what nobody
// writes at the beginning of a function may be refused here for no reason.
bool is_probeable(const ZydisDecodedInstruction& instruction) {
  for (int i = 0; i < instruction.raw.prefix_count; i++) {
    switch (instruction.raw.prefixes[i].value) {
      case 0x26: case 0x2e: case 0x36: case 0x3e: case 0xf0:
        return false;
    }
  }
  switch (instruction.meta.category) {
    case ZYDIS_CATEGORY_SYSTEM: case ZYDIS_CATEGORY_SYSCALL: case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_INTERRUPT: case ZYDIS_CATEGORY_IO: case ZYDIS_CATEGORY_IOSTRINGOP:
      return false;
    default:
      return instruction.mnemonic != ZYDIS_MNEMONIC_HLT;
  }
}

Flow flow_of(const ZydisDecodedInstruction& instruction) {
  switch (instruction.meta.category) {
    case ZYDIS_CATEGORY_COND_BR: return Flow::Branch;
    case ZYDIS_CATEGORY_UNCOND_BR: return Flow::Jump;
    case ZYDIS_CATEGORY_CALL: return Flow::Call;
    case ZYDIS_CATEGORY_RET: return Flow::Elsewhere;
    case ZYDIS_CATEGORY_INTERRUPT: return Flow::Elsewhere;
    default: break;
  }
  switch (instruction.mnemonic) {
    case ZYDIS_MNEMONIC_UD0: case ZYDIS_MNEMONIC_UD1: case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_HLT:
      return Flow::Elsewhere;
    default:
      return Flow::Next;
  }
}

bool tries_lock(const Decoded& decoded) {
  const ZydisDecodedOperand& first = decoded.operands[0];
  if (!(decoded.instruction.attributes & ZYDIS_ATTRIB_HAS_LOCK) ||
      first.type != ZYDIS_OPERAND_TYPE_MEMORY || first.mem.base != ZYDIS_REGISTER_RDI ||
      first.mem.index != ZYDIS_REGISTER_NONE || first.mem.disp.value != 0) {
    return false;
  }
  // A free spin lock is 1, and becomes 0; or what was expected there, was there.
  return decoded.instruction.mnemonic == ZYDIS_MNEMONIC_DEC ||
         decoded.instruction.mnemonic == ZYDIS_MNEMONIC_CMPXCHG;
}

}  // namespace

void Code::add(uint64_t address, std::string bytes) {
  blocks_.push_back({address, std::move(bytes)});
}

std::span<const uint8_t> Code::bytes_at(uint64_t address) const {
  for (const Block& block : blocks_) {
    if (address < block.address || address - block.address >= block.bytes.size()) continue;
    const auto bytes = std::span(reinterpret_cast<const uint8_t*>(block.bytes.data()), block.bytes.size());
    return bytes.subspan(address - block.address);
  }
  return {};
}

std::optional<Instruction> Code::at(uint64_t address) const {
  const auto decoded = decode(bytes_at(address));
  if (!decoded) return std::nullopt;
  Instruction instruction{.address = address, .length = decoded->instruction.length};
  instruction.flow = flow_of(decoded->instruction);
  instruction.emulated = is_emulated(decoded->instruction);
  instruction.probeable = is_probeable(decoded->instruction);
  instruction.tries_lock = tries_lock(*decoded);
  for (const ZydisDecodedOperand& operand : decoded->all()) {
    if (operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operand.imm.is_relative) {
      ZyanU64 target = 0;
      if (ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&decoded->instruction, &operand, address, &target))) {
        instruction.target = target;
      }
    }
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER ||
        !(operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) {
      continue;
    }
    const ZydisRegister whole =
        ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, operand.reg.value);
    for (size_t i = 0; i < kArguments.size(); i++) {
      if (whole == kArguments[i]) instruction.writes_arguments |= 1 << i;
    }
  }
  const bool goes = instruction.flow == Flow::Branch || instruction.flow == Flow::Jump;
  if (goes && instruction.target == 0) instruction.flow = Flow::Elsewhere;
  return instruction;
}

std::string Code::text_at(uint64_t address) const {
  const auto decoded = decode(bytes_at(address));
  if (!decoded) return "";
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_ATT);
  ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
  ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE,
                            ZYDIS_PADDING_DISABLED);
  std::array<char, 128> text{};
  ZydisFormatterFormatInstruction(&formatter, &decoded->instruction, decoded->operands.data(),
                                  decoded->instruction.operand_count_visible, text.data(),
                                  text.size(), address, nullptr);
  return text.data();
}

}  // namespace lockscope
