// Files are the traced process's to choose: whatever is in them, building a
// table must end soon and touch nothing that is not its own.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <random>
#include <vector>

#include "base/fd.h"
#include "unwind/call_frame_info.h"
#include "unwind/cfa_table.h"
#include "unwind/elf_code.h"

namespace lockscope {
namespace {

using Bytes = std::vector<uint8_t>;
using Clock = std::chrono::steady_clock;

Bytes small_library() {
  UniqueFd fd(::open("/lib/x86_64-linux-gnu/libdl.so.2", O_RDONLY | O_CLOEXEC));
  if (!fd) fd.reset(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const auto source = ByteSource::of_file(fd.get());
  auto bytes = source.read(0, source.size());
  return bytes ? *bytes : Bytes{};
}

void check_invariants(const CfaTable& table) {
  for (const auto& segment : table.segments) {
    ASSERT_FALSE(segment.rows.empty());
    ASSERT_EQ(segment.rows[0].offset, 0u);
    ASSERT_LE(segment.pages(), static_cast<uint32_t>(LS_UNWIND_MAX_PAGES));
    for (size_t i = 0; i < segment.rows.size(); ++i) {
      ASSERT_LT(segment.rows[i].rule, table.rules.size());
      ASSERT_LT(segment.rows[i].offset, segment.size);
      ASSERT_TRUE(i == 0 || segment.rows[i - 1].offset < segment.rows[i].offset);
    }
  }
}

void build(const Bytes& bytes) {
  if (auto table = build_cfa_table(ByteSource::of_memory(bytes))) check_invariants(*table);
}

TEST(HostileTable, Truncated) {
  const Bytes whole = small_library();
  ASSERT_FALSE(whole.empty());
  for (size_t size = 0; size < whole.size(); size += 1 + size / 200)
    build(Bytes(whole.begin(), whole.begin() + static_cast<long>(size)));
}

TEST(HostileTable, FlippedBits) {
  const Bytes whole = small_library();
  std::mt19937 random(7);
  for (int round = 0; round < 1500; ++round) {
    Bytes bytes = whole;
    // Headers more often: they hold the offsets.
    for (int flips = 1 + static_cast<int>(random() % 20); flips; --flips) {
      const size_t range = random() % 2 ? std::min<size_t>(1024, bytes.size()) : bytes.size();
      bytes[random() % range] ^= static_cast<uint8_t>(1u << random() % 8);
    }
    build(bytes);
  }
}

TEST(HostileTable, FlippedFrameInformation) {
  const Bytes whole = small_library();
  const auto source = ByteSource::of_memory(whole);
  const auto elf = ElfCode::parse(source);
  ASSERT_TRUE(elf.ok());
  const auto section = elf->eh_frame();
  ASSERT_TRUE(section.ok());
  std::mt19937 random(11);
  for (int round = 0; round < 3000; ++round) {
    ElfSection damaged = *section;
    for (int flips = 1 + static_cast<int>(random() % 10); flips; --flips)
      damaged.bytes[random() % damaged.bytes.size()] = static_cast<uint8_t>(random());
    for (const CfiKind kind : {CfiKind::EhFrame, CfiKind::DebugFrame}) {
      const auto info = parse_call_frame_info(damaged, kind);
      for (const auto& range : info.ranges) {
        uint64_t last = 0;
        run_call_frame_program(info, range, [&](uint64_t address, ls_unwind_rule) {
          ASSERT_GE(address, range.start);
          ASSERT_LT(address, range.end);
          ASSERT_GE(address, last);
          last = address;
        });
      }
    }
  }
}

/// A section with one common entry and `n` ranges that share it.
ElfSection many_ranges(const Bytes& common_program, size_t n, const Bytes& program) {
  ElfSection section;
  section.address = 0x1000000;
  auto& out = section.bytes;
  const auto put = [&](const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    out.insert(out.end(), bytes, bytes + size);
  };
  const auto put32 = [&](uint32_t value) { put(&value, 4); };
  const uint8_t head[] = {1, 'z', 'R', 0, 1, 0x78, 16, 1, 0x1b};
  put32(static_cast<uint32_t>(4 + sizeof head + common_program.size()));
  put32(0);
  put(head, sizeof head);
  put(common_program.data(), common_program.size());
  for (size_t i = 0; i < n; ++i) {
    put32(static_cast<uint32_t>(4 + 8 + 1 + program.size()));
    put32(static_cast<uint32_t>(out.size()));  // from here back to 0
    put32(static_cast<uint32_t>(i * 16 - out.size()));
    put32(16);
    out.push_back(0);
    put(program.data(), program.size());
  }
  return section;
}

TEST(HostileTable, WorkIsLinear) {
  // A common program of 1 MB, shared by 100,000 ranges: 100 GB to interpret, if
  // one did. And ranges that remember without end.
  const auto section = many_ranges(Bytes(1 << 20, 0), 100000, {0x0a});
  const auto remember = many_ranges({0x0c, 7, 8, 0x90, 1}, 10, Bytes(1 << 20, 0x0a));
  const auto begin = Clock::now();
  for (const auto* s : {&section, &remember}) {
    const auto info = parse_call_frame_info(*s, CfiKind::EhFrame);
    EXPECT_GE(info.ranges.size(), 10u);
    for (const auto& range : info.ranges)
      run_call_frame_program(info, range, [](uint64_t, ls_unwind_rule rule) {
        ASSERT_EQ(rule.cfa, LS_CFA_UNSUPPORTED);
      });
  }
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(5));
}

}  // namespace
}  // namespace lockscope
