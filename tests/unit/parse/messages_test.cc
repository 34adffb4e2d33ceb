// Replies are written by a process that may be in the hands of an attacker.
#include "parse/messages.h"

#include <gtest/gtest.h>

#include <random>

namespace lockscope {
namespace {

CfaTable small_table() {
  CfaTable table;
  table.rules = {{LS_CFA_UNSUPPORTED, 0, 0, 0}, {LS_CFA_SP, LS_BP_SAME, 0, 8}};
  table.segments = {{.file_offset = 0x1000,
                     .address = 0x401000,
                     .size = 0x3000,
                     .rows = {{0, 1}, {0x10, 0}, {0x2fff, 1}}}};
  return table;
}

bool is_accepted(const CfaTable& table) {
  return decode_reply<CfaTable>(encode(table)).has_value();
}

TEST(Messages, TablesOutOfBounds) {
  ASSERT_TRUE(is_accepted(small_table()));
  const auto refused = [](auto change) {
    CfaTable table = small_table();
    change(table, table.segments[0]);
    return !is_accepted(table);
  };
  EXPECT_TRUE(refused([](auto&, auto& s) { s.rows[1].rule = 2; })) << "no such rule";
  EXPECT_TRUE(refused([](auto&, auto& s) { s.rows[2].offset = 0x3000; })) << "outside";
  EXPECT_TRUE(refused([](auto&, auto& s) { s.rows[1].offset = 0; })) << "not in order";
  EXPECT_TRUE(refused([](auto&, auto& s) { s.rows[0].offset = 1; })) << "not from the start";
  EXPECT_TRUE(refused([](auto&, auto& s) { s.rows.clear(); }));
  EXPECT_TRUE(refused([](auto&, auto& s) { s.size = 1ull << 40; })) << "too many pages";
  EXPECT_TRUE(refused([](auto&, auto& s) { s.address = ~0ull - 5; })) << "wraps";
  EXPECT_TRUE(refused([](auto& t, auto& s) {
    s.size = uint64_t{LS_UNWIND_MAX_PAGES} << LS_UNWIND_PAGE_SHIFT;
    t.segments.push_back(s);
  })) << "too many pages together";
  EXPECT_TRUE(refused([](auto& t, auto&) { t.rules.resize(LS_UNWIND_MAX_RULES + 1); }));
}

TEST(Messages, LinksThatWouldLeadElsewhere) {
  const auto refused = [](const ElfLinks& links) {
    return !decode_reply<ElfLinks>(encode(links)).has_value();
  };
  EXPECT_FALSE(refused({.build_id = "00ff", .debug_link = "a.debug", .supplement = "b"}));
  EXPECT_TRUE(refused({.build_id = "../../etc/shadow"}));
  EXPECT_TRUE(refused({.build_id = "AB"}));
  EXPECT_TRUE(refused({.build_id = "abc"}));
  EXPECT_TRUE(refused({.debug_link = "../a"}));
  EXPECT_TRUE(refused({.debug_link = ".."}));
  EXPECT_TRUE(refused({.debug_link = std::string("a\0b", 3)}));
  EXPECT_TRUE(refused({.supplement = "/b"}));
  EXPECT_TRUE(refused({.supplement_id = "x"}));
}

TEST(Messages, NamesAreMadePrintable) {
  const std::vector<Names> names = {
      {.frames = {{.function = "f\x1b[2J", .file = "a\nb", .line = 7, .inlined = true},
                  {.function = std::string(5000, 'x')}}},
      {.nameless_start = 0x1000}};
  const auto reply = decode_reply<std::vector<Names>>(encode(names));
  ASSERT_TRUE(reply && reply->ok());
  const auto& back = reply->value();
  EXPECT_EQ(back.at(0).frames.at(0), (Frame{"f?[2J", "a?b", 7, "", true}));
  EXPECT_EQ(back.at(0).frames.at(1).function.size(), 5000u);
  EXPECT_EQ(back.at(1).nameless_start, 0x1000u);
  EXPECT_FALSE(decode_reply<std::vector<Names>>(
                   encode(std::vector<Names>{{.frames = {{.function = std::string(100000, 'x')}}}}))
                   .has_value())
      << "longer than any parser gives";
}

TEST(Messages, ObjectsAreMadePrintable) {
  const std::vector<NamedObject> objects = {{"g\x1block", 40}, {}};
  const auto reply = decode_reply<std::vector<NamedObject>>(encode(objects));
  ASSERT_TRUE(reply && reply->ok());
  ASSERT_EQ(reply->value().size(), 2u);
  EXPECT_EQ(reply->value()[0].name, "g?lock");
  EXPECT_EQ(reply->value()[0].offset, 40u);
  EXPECT_EQ(reply->value()[1].name, "");
  EXPECT_FALSE(decode_reply<std::vector<NamedObject>>(
                   encode(std::vector<NamedObject>{{std::string(100000, 'x'), 0}}))
                   .has_value())
      << "longer than any parser gives";
}

TEST(Messages, Failures) {
  const auto reply = decode_reply<uint32_t>(encode(failed("no ELF \x1b file")));
  ASSERT_TRUE(reply.has_value());
  ASSERT_FALSE(reply->ok());
  EXPECT_EQ(reply->error().message, "no ELF ? file");
  EXPECT_FALSE(decode_reply<uint32_t>("").has_value());
  EXPECT_FALSE(decode_reply<uint32_t>(encode(5u) + "x").has_value());
  EXPECT_FALSE(decode_reply<Compiler>(encode(static_cast<Compiler>(9))).has_value());
  EXPECT_FALSE(decode_reply<LoadedSymbols>(encode(LoadedSymbols{})).has_value()) << "no id";
}

TEST(Messages, ProbePlans) {
  ProbePlan plan{.libc = Libc::Musl};
  plan.sites.push_back({LS_CALL_SPIN_LOCK, "pthread_spin_lock", 0x1000, 0x1003, 0x3, true, true,
                        "jnz\x1b 0x2000", "why"});
  plan.unprobed.push_back({"sem_wait", "seen elsewhere"});
  const auto reply = decode_reply<ProbePlan>(encode(plan));
  ASSERT_TRUE(reply && *reply);
  const ProbePlan& got = **reply;
  EXPECT_EQ(got.libc, Libc::Musl);
  ASSERT_EQ(got.sites.size(), 1u);
  EXPECT_EQ(got.sites[0].call, LS_CALL_SPIN_LOCK);
  EXPECT_EQ(got.sites[0].address, 0x1003u);
  EXPECT_EQ(got.sites[0].file_offset, 3u);
  EXPECT_TRUE(got.sites[0].emulated && got.sites[0].outcome_in_zero_flag);
  EXPECT_EQ(got.sites[0].instruction, "jnz? 0x2000");
  ASSERT_EQ(got.unprobed.size(), 1u);
  EXPECT_EQ(got.unprobed[0].reason, "seen elsewhere");

  plan.sites[0].call = static_cast<ls_call>(LS_CALLS);
  EXPECT_FALSE(decode_reply<ProbePlan>(encode(plan)).has_value()) << "no such call";
  plan = {.libc = static_cast<Libc>(3)};
  EXPECT_FALSE(decode_reply<ProbePlan>(encode(plan)).has_value()) << "no such libc";
}

TEST(Messages, TruncatedAndLong) {
  const std::string whole = encode(small_table());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(decode_reply<CfaTable>(whole.substr(0, size)).has_value()) << size;
  }
  EXPECT_FALSE(decode_reply<CfaTable>(whole + "x").has_value());
}

TEST(Messages, Requests) {
  const ParseRequest request{
      .what = ParseRequest::What::Find, .lines = true, .id = 3, .addresses = {1, 2, ~0ull}};
  const auto back = decode_request(encode(request));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->what, request.what);
  EXPECT_EQ(back->id, 3u);
  EXPECT_EQ(back->addresses, request.addresses);
  EXPECT_FALSE(decode_request("").ok());
}

}  // namespace
}  // namespace lockscope
