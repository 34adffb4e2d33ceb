#include <array>
#include <limits>

#include "unwind/byte_cursor.h"
#include "unwind/call_frame_info.h"

namespace lockscope {
namespace {

using Bytes = std::span<const uint8_t>;

// Columns of x86-64 (psABI, figure 3.36).
enum : uint64_t { kRbp = 6, kRsp = 7, kReturn = 16 };

/// Where the caller's value of a register is.
struct RegisterRule {
  enum Kind : uint8_t { Same, Undefined, AtCfa, Expression, Other };
  Kind kind = Same;
  int64_t offset = 0;  // AtCfa: from the CFA
  Bytes expression;    // Expression: yields the address
};

/// Where the CFA is: a register and an offset, or an expression.
struct CfaRule {
  uint64_t column = ~uint64_t{0};
  int64_t offset = 0;
  bool by_expression = false;
  Bytes expression;
};

struct State {
  CfaRule cfa;
  RegisterRule rbp;
  RegisterRule ret{RegisterRule::Other};
};

constexpr ls_unwind_rule kUnsupported{LS_CFA_UNSUPPORTED, 0, 0, 0};

bool fits16(int64_t value) { return value >= -32768 && value <= 32767; }
bool fits32(int64_t value) {
  return value >= std::numeric_limits<int32_t>::min() &&
         value <= std::numeric_limits<int32_t>::max();
}

int32_t halves(int64_t low, int64_t high) {
  return static_cast<int32_t>((static_cast<uint32_t>(high) << 16) |
                              (static_cast<uint32_t>(low) & 0xffff));
}

// Operations of DWARF expressions that occur in frame information.
enum : uint8_t {
  kDeref = 0x06,
  kConst1u = 0x08,
  kAnd = 0x1a,
  kPlus = 0x22,
  kPlusConst = 0x23,
  kShl = 0x24,
  kGe = 0x2a,
  kLit0 = 0x30,
  kLit3 = 0x33,
  kLit15 = 0x3f,
  kReg0 = 0x70,  // DW_OP_breg0
  kBregRbp = kReg0 + 6,
  kBregRsp = kReg0 + 7,
  kBregRip = kReg0 + 16,
};

/// "breg rsp/rbp N" and nothing else.
bool parse_address(Bytes expression, uint8_t& base, int64_t& offset) {
  ByteCursor cursor(expression);
  base = cursor.u8();
  offset = cursor.sleb();
  return cursor.ok() && cursor.at_end() && (base == kBregRbp || base == kBregRsp);
}

/// The forms of CFA expressions that linkers, compilers and people write.
ls_unwind_rule cfa_of_expression(Bytes expression) {
  ByteCursor cursor(expression);
  const uint8_t base = cursor.u8();
  const int64_t offset = cursor.sleb();
  if (!cursor.ok() || (base != kBregRbp && base != kBregRsp)) return kUnsupported;
  if (cursor.at_end()) {
    const uint8_t kind = base == kBregRsp ? LS_CFA_SP : LS_CFA_BP;
    return fits32(offset) ? ls_unwind_rule{kind, 0, 0, static_cast<int32_t>(offset)}
                          : kUnsupported;
  }
  if (!fits16(offset)) return kUnsupported;
  uint8_t op = cursor.u8();

  // *(register + offset) [+ n]: stacks realigned by gcc, OpenSSL's assembly.
  if (op == kDeref) {
    const uint8_t kind = base == kBregRsp ? LS_CFA_DEREF_SP : LS_CFA_DEREF_BP;
    int64_t add = 0;
    if (!cursor.at_end()) {
      op = cursor.u8();
      if (op == kPlusConst) {
        add = static_cast<int64_t>(cursor.uleb());
      } else {
        if (op == kConst1u) {
          add = cursor.u8();
        } else if (op >= kLit0 && op < kLit0 + 32) {
          add = op - kLit0;
        } else {
          return kUnsupported;
        }
        if (cursor.u8() != kPlus) return kUnsupported;
      }
    }
    if (!cursor.ok() || !cursor.at_end() || !fits16(add)) return kUnsupported;
    return {kind, 0, 0, halves(offset, add)};
  }

  // The linker's for .plt: rsp + 8 + ((rip & 15) >= 10 or 11) << 3.
  if (op != kBregRip || base != kBregRsp || cursor.sleb() != 0) return kUnsupported;
  if (cursor.u8() != kLit15 || cursor.u8() != kAnd) return kUnsupported;
  const uint8_t threshold = static_cast<uint8_t>(cursor.u8() - kLit0);
  if (threshold > 16 || cursor.u8() != kGe || cursor.u8() != kLit3 || cursor.u8() != kShl ||
      cursor.u8() != kPlus || !cursor.ok() || !cursor.at_end())
    return kUnsupported;
  return {LS_CFA_PLT, 0, 0, halves(offset, threshold)};
}

ls_unwind_rule cfa_of(const CfaRule& cfa) {
  if (cfa.by_expression) return cfa_of_expression(cfa.expression);
  if ((cfa.column != kRsp && cfa.column != kRbp) || !fits32(cfa.offset)) return kUnsupported;
  const uint8_t kind = cfa.column == kRsp ? LS_CFA_SP : LS_CFA_BP;
  return {kind, 0, 0, static_cast<int32_t>(cfa.offset)};
}

void add_rbp(const RegisterRule& rbp, ls_unwind_rule& rule) {
  rule.bp = LS_BP_UNKNOWN;
  switch (rbp.kind) {
    case RegisterRule::Same: rule.bp = LS_BP_SAME; return;
    case RegisterRule::AtCfa:
      if (!fits16(rbp.offset)) return;
      rule.bp = LS_BP_AT_CFA;
      rule.bp_offset = static_cast<int16_t>(rbp.offset);
      return;
    case RegisterRule::Expression: {
      uint8_t base = 0;
      int64_t offset = 0;
      if (!parse_address(rbp.expression, base, offset)) return;
      if (base == kBregRsp) {
        if (rule.cfa != LS_CFA_SP) return;
        offset -= rule.cfa_offset;
      }
      if (!fits16(offset)) return;
      rule.bp = base == kBregRsp ? LS_BP_AT_CFA : LS_BP_AT_BP;
      rule.bp_offset = static_cast<int16_t>(offset);
      return;
    }
    case RegisterRule::Undefined:
    case RegisterRule::Other: return;
  }
}

ls_unwind_rule rule_of(const State& state, bool signal_frame) {
  if (state.ret.kind == RegisterRule::Undefined) return {LS_CFA_END, 0, 0, 0};
  ls_unwind_rule rule = cfa_of(state.cfa);
  if (signal_frame) {
    // __restore_rt of glibc: CFA = *(rsp + 160), the rsp in struct ucontext.
    const bool ucontext = rule.cfa == LS_CFA_DEREF_SP && rule.cfa_offset == halves(160, 0);
    return ucontext ? ls_unwind_rule{LS_CFA_SIGNAL, 0, 0, 0} : kUnsupported;
  }
  if (rule.cfa == LS_CFA_UNSUPPORTED) return rule;
  if (state.ret.kind != RegisterRule::AtCfa || state.ret.offset != -8) return kUnsupported;
  add_rbp(state.rbp, rule);
  return rule;
}

class Interpreter {
 public:
  explicit Interpreter(const CfiCommon& common) : common_(common) {}

  /// Runs a program; `on_advance(delta)` is called before the location moves.
  /// False if an instruction is not known or makes no sense.
  template <class OnAdvance>
  bool run(Bytes program, OnAdvance on_advance);

  State state;
  State initial;  ///< after the common entry's program, for DW_CFA_restore

 private:
  void set(uint64_t column, RegisterRule rule) {
    if (column == kRbp) state.rbp = rule;
    if (column == kReturn) state.ret = rule;
  }
  RegisterRule at_cfa(int64_t factored) const {
    return {RegisterRule::AtCfa, multiply(factored), {}};
  }
  // Wraps on nonsense instead of being undefined.
  int64_t multiply(int64_t factored) const {
    return static_cast<int64_t>(static_cast<uint64_t>(factored) *
                                static_cast<uint64_t>(common_.data_align));
  }
  void restore(uint64_t column) {
    if (column == kRbp) state.rbp = initial.rbp;
    if (column == kReturn) state.ret = initial.ret;
  }

  const CfiCommon& common_;
  // Compilers nest one deep; more than this is not sensible.
  std::array<State, 16> remembered_;
  size_t n_remembered_ = 0;
};

template <class OnAdvance>
bool Interpreter::run(Bytes program, OnAdvance on_advance) {
  ByteCursor cursor(program);
  while (!cursor.at_end() && cursor.ok()) {
    const uint8_t op = cursor.u8();
    const uint8_t low = op & 0x3f;
    switch (op & 0xc0) {
      case 0x40: on_advance(low * common_.code_align); continue;
      case 0x80: set(low, at_cfa(static_cast<int64_t>(cursor.uleb()))); continue;
      case 0xc0: restore(low); continue;
      default: break;
    }
    switch (op) {
      case 0x00: break;                                                // nop
      case 0x02: on_advance(cursor.u8() * common_.code_align); break;  // advance_loc1
      case 0x03: on_advance(cursor.u16() * common_.code_align); break;
      case 0x04: on_advance(cursor.u32() * common_.code_align); break;
      case 0x05: {  // offset_extended
        const uint64_t column = cursor.uleb();
        set(column, at_cfa(static_cast<int64_t>(cursor.uleb())));
        break;
      }
      case 0x06: restore(cursor.uleb()); break;
      case 0x07: set(cursor.uleb(), {RegisterRule::Undefined}); break;
      case 0x08: set(cursor.uleb(), {RegisterRule::Same}); break;
      case 0x09:  // register
        set(cursor.uleb(), {RegisterRule::Other});
        cursor.uleb();
        break;
      case 0x0a:  // remember_state
        if (n_remembered_ == remembered_.size()) return false;
        remembered_[n_remembered_++] = state;
        break;
      case 0x0b:  // restore_state, the CFA included as gcc and clang mean it
        if (n_remembered_ == 0) return false;
        state = remembered_[--n_remembered_];
        break;
      case 0x0c:  // def_cfa
        state.cfa = {cursor.uleb()};
        state.cfa.offset = static_cast<int64_t>(cursor.uleb());
        break;
      case 0x0d:  // def_cfa_register
        state.cfa.column = cursor.uleb();
        state.cfa.by_expression = false;
        break;
      case 0x0e: state.cfa.offset = static_cast<int64_t>(cursor.uleb()); break;
      case 0x0f:  // def_cfa_expression
        state.cfa.by_expression = true;
        state.cfa.expression = cursor.block(cursor.uleb());
        break;
      case 0x10: {  // expression
        const uint64_t column = cursor.uleb();
        set(column, {RegisterRule::Expression, 0, cursor.block(cursor.uleb())});
        break;
      }
      case 0x11: {  // offset_extended_sf
        const uint64_t column = cursor.uleb();
        set(column, at_cfa(cursor.sleb()));
        break;
      }
      case 0x12:  // def_cfa_sf
        state.cfa = {cursor.uleb()};
        state.cfa.offset = multiply(cursor.sleb());
        break;
      case 0x13: state.cfa.offset = multiply(cursor.sleb()); break;
      case 0x14:  // val_offset, val_offset_sf
      case 0x15:
        set(cursor.uleb(), {RegisterRule::Other});
        cursor.uleb();
        break;
      case 0x16: {  // val_expression
        set(cursor.uleb(), {RegisterRule::Other});
        cursor.block(cursor.uleb());
        break;
      }
      case 0x2e: cursor.uleb(); break;  // GNU_args_size
      case 0x2f: {                      // GNU_negative_offset_extended
        const uint64_t column = cursor.uleb();
        set(column, at_cfa(static_cast<int64_t>(~cursor.uleb() + 1)));
        break;
      }
      default: return false;  // set_loc (0x01) included: nobody writes it
    }
  }
  return cursor.ok();
}

}  // namespace

void run_call_frame_program(const CallFrameInfo& info, const CfiRange& range,
                            const std::function<void(uint64_t, ls_unwind_rule)>& emit) {
  const CfiCommon& common = info.commons[range.common];
  Interpreter interpreter(common);
  uint64_t at = range.start;
  if (!common.usable || !interpreter.run(common.program, [](uint64_t) {})) {
    emit(at, kUnsupported);
    return;
  }
  interpreter.initial = interpreter.state;
  const bool understood = interpreter.run(range.program, [&](uint64_t delta) {
    if (delta == 0 || at >= range.end) return;
    emit(at, rule_of(interpreter.state, common.signal_frame));
    at = delta < range.end - at ? at + delta : range.end;
  });
  if (at < range.end)
    emit(at, understood ? rule_of(interpreter.state, common.signal_frame) : kUnsupported);
}

}  // namespace lockscope
