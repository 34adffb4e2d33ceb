// The table of real libraries against elfutils' own interpreter of frame
// information, at many addresses.
#include "unwind/cfa_table.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <libelf.h>

#include <filesystem>
#include <random>
#include <string>

#include "base/fd.h"

namespace lockscope {
namespace {

constexpr int kRbp = 6, kRsp = 7, kReturn = 16;

/// elfutils' answer at one address, in our terms.
struct Expected {
  bool known = false;  ///< elfutils has an entry for the address
  ls_unwind_rule rule{};
};

Expected ask(Dwarf_CFI* cfi, uint64_t address) {
  Expected expected;
  Dwarf_Frame* frame = nullptr;
  if (dwarf_cfi_addrframe(cfi, address, &frame) != 0) return expected;
  expected.known = true;
  auto& rule = expected.rule;
  bool signal = false;
  dwarf_frame_info(frame, nullptr, nullptr, &signal);
  Dwarf_Op memory[3];
  Dwarf_Op* ops = nullptr;
  size_t n = 0;
  rule.cfa = LS_CFA_UNSUPPORTED;
  if (dwarf_frame_register(frame, kReturn, memory, &ops, &n) == 0 && n == 0 && ops == memory) {
    rule.cfa = LS_CFA_END;
    free(frame);
    return expected;
  }
  if (signal) {
    rule.cfa = LS_CFA_SIGNAL;
  } else if (dwarf_frame_cfa(frame, &ops, &n) == 0 && n == 1 &&
             (ops[0].atom == DW_OP_bregx || (ops[0].atom >= DW_OP_breg0 && ops[0].atom <= DW_OP_breg31))) {
    const bool x = ops[0].atom == DW_OP_bregx;
    const uint64_t column = x ? ops[0].number : ops[0].atom - DW_OP_breg0;
    if (column == kRsp) rule.cfa = LS_CFA_SP;
    if (column == kRbp) rule.cfa = LS_CFA_BP;
    if (column == kRsp || column == kRbp)
      rule.cfa_offset = static_cast<int32_t>(x ? ops[0].number2 : ops[0].number);
  } else if (n > 3 && ops[2].atom == DW_OP_lit15) {
    rule.cfa = LS_CFA_PLT;
  } else if (n >= 2 && ops[1].atom == DW_OP_deref) {
    rule.cfa = ops[0].atom == DW_OP_breg7 ? LS_CFA_DEREF_SP : LS_CFA_DEREF_BP;
  }
  rule.bp = LS_BP_UNKNOWN;
  if (dwarf_frame_register(frame, kRbp, memory, &ops, &n) == 0) {
    if (n == 0 && ops == nullptr) {
      rule.bp = LS_BP_SAME;
    } else if (n >= 1 && ops[0].atom == DW_OP_call_frame_cfa) {
      if (n == 1) {
        rule.bp = LS_BP_AT_CFA;
      } else if (n == 2 && ops[1].atom == DW_OP_plus_uconst) {
        rule.bp = LS_BP_AT_CFA;
        rule.bp_offset = static_cast<int16_t>(ops[1].number);
      }
    } else if (n == 1 && ops[0].atom == DW_OP_breg6) {
      rule.bp = LS_BP_AT_BP;
      rule.bp_offset = static_cast<int16_t>(ops[0].number);
    }
  }
  free(frame);
  return expected;
}

std::string text(ls_unwind_rule rule) {
  return "cfa " + std::to_string(rule.cfa) + " " + std::to_string(rule.cfa_offset) + ", rbp " +
         std::to_string(rule.bp) + " " + std::to_string(rule.bp_offset);
}

class RealFiles : public ::testing::TestWithParam<const char*> {};

TEST_P(RealFiles, AgreeWithElfutils) {
  UniqueFd fd(::open(GetParam(), O_RDONLY | O_CLOEXEC));
  if (!fd) GTEST_SKIP() << GetParam() << " is not on this machine";
  const auto table = build_cfa_table(ByteSource::of_file(fd.get()));
  ASSERT_TRUE(table.ok()) << table.error().message;

  ::elf_version(EV_CURRENT);
  Elf* elf = ::elf_begin(fd.get(), ELF_C_READ_MMAP, nullptr);
  ASSERT_NE(elf, nullptr);
  Dwarf_CFI* cfi = ::dwarf_getcfi_elf(elf);
  ASSERT_NE(cfi, nullptr);

  std::mt19937_64 random(1);
  size_t compared = 0, unsupported = 0;
  for (const CfaSegment& segment : table->segments) {
    ASSERT_FALSE(segment.rows.empty());
    EXPECT_EQ(segment.rows[0].offset, 0u);
    for (size_t i = 1; i < segment.rows.size(); ++i)
      ASSERT_LT(segment.rows[i - 1].offset, segment.rows[i].offset);
    // At rows and right before them, where mistakes would be, and anywhere.
    for (int i = 0; i < 30000; ++i) {
      uint64_t offset = random() % segment.size;
      if (i % 3) offset = segment.rows[random() % segment.rows.size()].offset - (i % 3 == 1);
      if (offset >= segment.size) continue;
      const uint64_t address = segment.address + offset;
      const Expected expected = ask(cfi, address);
      if (!expected.known) continue;
      const ls_unwind_rule* found = find_rule(*table, address);
      ASSERT_NE(found, nullptr);
      ++compared;
      const auto& want = expected.rule;
      if (found->cfa == LS_CFA_UNSUPPORTED) {
        ++unsupported;
        continue;
      }
      ASSERT_EQ(found->cfa, want.cfa) << std::hex << address << ": " << text(*found) << ", elfutils "
                                      << text(want);
      if (want.cfa == LS_CFA_SP || want.cfa == LS_CFA_BP) {
        ASSERT_EQ(found->cfa_offset, want.cfa_offset) << std::hex << address;
        ASSERT_EQ(found->bp, want.bp) << std::hex << address << ": " << text(*found) << ", elfutils "
                                      << text(want);
        ASSERT_EQ(found->bp_offset, want.bp_offset) << std::hex << address;
      }
    }
  }
  ::dwarf_cfi_end(cfi);
  ::elf_end(elf);
  EXPECT_GT(compared, 1000u);
  // Hand-written assembly: 0.02 % of libc's code, 1.8 % of ld.so's, 2.1 % of
  // OpenSSL's, but a larger share of the rows that are sampled here.
  EXPECT_LT(static_cast<double>(unsupported), 0.15 * static_cast<double>(compared));
}

INSTANTIATE_TEST_SUITE_P(Files, RealFiles,
                         ::testing::Values("/lib/x86_64-linux-gnu/libc.so.6",
                                           "/lib/x86_64-linux-gnu/libm.so.6",
                                           "/lib64/ld-linux-x86-64.so.2",
                                           "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
                                           "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
                                           "/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1",
                                           "/usr/bin/perl", "/usr/bin/node",
                                           "/usr/sbin/mariadbd", "/proc/self/exe"));

TEST(CfaTable, KnowsTheEndOfTheStack) {
  UniqueFd fd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const auto table = build_cfa_table(ByteSource::of_file(fd.get()));
  ASSERT_TRUE(table.ok());
  bool has_end = false;
  for (const auto& rule : table->rules) has_end |= rule.cfa == LS_CFA_END;
  EXPECT_TRUE(has_end) << "_start says that it has no caller";
}

TEST(CfaTable, RefusesWhatIsNoProgram) {
  const std::string_view script = "#!/bin/sh\nexit 0\n";
  EXPECT_FALSE(build_cfa_table(ByteSource::of_memory(
                   {reinterpret_cast<const uint8_t*>(script.data()), script.size()})));
  EXPECT_FALSE(build_cfa_table(ByteSource::of_memory({})));
}

}  // namespace
}  // namespace lockscope
