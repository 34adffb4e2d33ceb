#include "unwind/go_frames.h"

#include <unistd.h>

#include <cstring>
#include <limits>
#include <string>
#include <utility>

namespace lockscope {
namespace {

// A row each. A program of 100,000 functions has 0.7 M.
constexpr size_t kMaxChanges = 4 << 20;
// Until a function has its frame; in assembly mostly the first one is it.
constexpr int kMaxChangesToFrame = 64;

constexpr ls_unwind_rule kNone{LS_CFA_NONE, 0, 0, 0};
constexpr ls_unwind_rule kUnsupported{LS_CFA_UNSUPPORTED, 0, 0, 0};
constexpr ls_unwind_rule kFramePointer{LS_CFA_FP, 0, 0, 0};
constexpr ls_unwind_rule kEnd{LS_CFA_END, 0, 0, 0};
constexpr ls_unwind_rule kSignal{LS_CFA_SIGNAL, 0, 0, 0};

// rbp is saved right below the return address.
constexpr int16_t kSavedBp = -16;

Result<ElfFile> open_elf(const ByteSource& source) {
  if (source.fd() >= 0) return ElfFile::open(UniqueFd(::dup(source.fd())));
  const auto bytes = source.bytes();
  return ElfFile::from_memory({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

/// The rules of one function.
class FunctionRules {
 public:
  FunctionRules(const GoPclntab& table, const GoFunction& function) {
    const bool by_hand = function.flags & GoFunction::Asm;
    if (by_hand) saves_bp_ = begins_with_frame(table, function);
    if (function.flags & GoFunction::SpWrite) switches_ = true;
    if (!by_hand) return;
    const std::string name = table.name(function.name);
    if (name == "runtime.sigreturn" || name == "runtime.sigreturn__sigaction") {
      everywhere_ = kSignal;
    } else if (name == "runtime.sigtramp") {
      // "Top" of the signal's stack, but the kernel's frame is above it.
    } else if ((function.flags & GoFunction::TopFrame) || name == "runtime.mcall" ||
               name == "runtime.morestack") {
      // The goroutine that these left for the scheduler may run elsewhere by now.
      everywhere_ = kEnd;
    }
  }

  ls_unwind_rule at_depth(int32_t depth) const {
    if (everywhere_) return *everywhere_;
    if (depth < 0 || depth > std::numeric_limits<int32_t>::max() - 8) return kUnsupported;
    // systemstack, asmcgocall, cgocallback: rsp is on another stack than the
    // caller, rbp is not. Before Go 1.21 they have no frame of their own and
    // their caller is passed over: rbp is that one's.
    if (switches_ && (depth > 0 || !saves_bp_)) return kFramePointer;
    const bool saved = depth > 0 && saves_bp_;
    return {LS_CFA_SP, static_cast<uint8_t>(saved ? LS_BP_AT_CFA : LS_BP_SAME),
            saved ? kSavedBp : int16_t{0}, depth + 8};
  }

 private:
  // Assembly may move rsp without saving rbp. What the assembler puts first
  // where it does: push %rbp; before Go 1.21, sub $N,%rsp; mov %rbp,N-8(%rsp).
  static bool begins_with_frame(const GoPclntab& table, const GoFunction& function) {
    uint64_t deeper = 0;
    int left = kMaxChangesToFrame;
    table.each_value(function, function.stack, [&](uint64_t start, uint64_t, int32_t depth) {
      if (depth > 0) deeper = start;
      return depth <= 0 && --left > 0;
    });
    if (deeper <= function.start) return false;
    const auto offset = table.file().offset_of_address(deeper - 1);
    unsigned char code[5];
    if (!offset || table.file().read_at(*offset, code, sizeof code) != sizeof code) return false;
    constexpr unsigned char kPushBp = 0x55;
    constexpr unsigned char kStoreBp[][4] = {{0x48, 0x89, 0x6c, 0x24}, {0x48, 0x89, 0xac, 0x24}};
    return code[0] == kPushBp || std::memcmp(code + 1, kStoreBp[0], 4) == 0 ||
           std::memcmp(code + 1, kStoreBp[1], 4) == 0;
  }

  std::optional<ls_unwind_rule> everywhere_;
  bool saves_bp_ = true;
  bool switches_ = false;
};

}  // namespace

std::optional<GoFrames> GoFrames::load(const ByteSource& source) {
  auto file = open_elf(source);
  if (!file) return std::nullopt;
  auto table = GoPclntab::load(std::move(*file));
  if (!table) return std::nullopt;
  table->hold();
  GoFrames frames(std::move(*table));
  const auto first = frames.table_.function(0);
  const auto last = frames.table_.function(frames.table_.size() - 1);
  if (!first || !last || last->end <= first->start) return std::nullopt;
  frames.start_ = first->start;
  frames.end_ = last->end;
  return frames;
}

void GoFrames::run(const std::function<void(uint64_t, ls_unwind_rule)>& emit) const {
  size_t changes = 0;
  uint64_t covered = start_;
  for (uint64_t i = 0; i < table_.size(); ++i) {
    const auto function = table_.function(i);
    if (!function || function->start < covered || function->end > end_) continue;
    const FunctionRules rules(table_, *function);
    covered = function->start;
    table_.each_value(*function, function->stack, [&](uint64_t start, uint64_t end, int32_t depth) {
      if (++changes > kMaxChanges) return false;
      emit(start, rules.at_depth(depth));
      covered = end;
      return true;
    });
    // C code in a program that Go linked by itself has no depths.
    if (covered < function->end) emit(covered, changes > kMaxChanges ? kUnsupported : kNone);
    covered = function->end;
  }
}

}  // namespace lockscope
