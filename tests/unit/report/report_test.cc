#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "../capture/capture_builder.h"
#include "report/diagnosis_json.h"
#include "report/diagnosis_text.h"
#include "report/flame_view.h"
#include "report/tables.h"

namespace lockscope {
namespace {

using nlohmann::json;

// Two processes, a long-held mutex, a condition, a wait without a stack, and
// waiting that was not released yet.
class Report : public testing::Test {
 protected:
  Report() {
    Lock& lock = made_.lock(app_, 0x1000, LS_TRAIT_VAL_2);
    lock.waiter_threads = 4;
    lock.unreleased_ns = 7'000'000;
    lock.owner_tid = 99;
    WaitRow& row = made_.waits(0, mutex_, 99, 10'000'000);
    row.in_flight = 1;
    row.in_flight_ns = row.in_flight_max_ns = 10'000'000;
    made_.waits(0, kNone, 1, 5'000'000);
    made_.releases(0, unlock_, 90, 990'000'000, 9'000'000);
    made_.releases(0, kNone, 1, 8'000'000);
    made_.lock(app_, 0x2028);
    made_.waits(1, cond_, 3, 2'000'000'000).timeouts = 2;
    made_.lock(other_, 0x3000, LS_TRAIT_VAL_2);
    made_.waits(2, theirs_, 2, 40'000'000);
    made_.releases(2, theirs_, 2, 80'000'000);
    made_.capture().pairs.push_back({0, mutex_, unlock_, 90, 900'000'000});
    made_.capture().pairs.push_back({0, mutex_, kNone, 1, 5'000'000});
    made_.capture().pairs.push_back({kNone, mutex_, unlock_, 1, 5'000'000});
    made_.frames()[mutex_][2].file = "store.cc";
    made_.frames()[mutex_][2].line = 42;
    made_.frames()[mutex_][2].inlined = true;
  }

  Diagnosis diagnosis() { return diagnose(made_.built()); }

  CaptureBuilder made_;
  const Index app_ = made_.process(77, "app");
  const Index other_ = made_.process(78, "other");
  const Index mutex_ = made_.stack(app_, {"__lll_lock_wait@libc.so.6", "pthread_mutex_lock@libc.so.6",
                                          "Store::append", "main"});
  const Index unlock_ = made_.stack(app_, {"pthread_mutex_unlock@libc.so.6", "Store::flush", "main"});
  const Index cond_ = made_.stack(app_, {"pthread_cond_wait@libc.so.6", "Queue::pop", "main"});
  const Index theirs_ = made_.stack(other_, {"pthread_mutex_lock@libc.so.6", "other::work"});
};

uint64_t total(const FlameGraph& graph) {
  return std::accumulate(graph.stacks.begin(), graph.stacks.end(), uint64_t{0},
                         [](uint64_t sum, const FlameStack& stack) { return sum + stack.value; });
}

// Text that names of a traced process may not bring in: controls of the
// terminal, lines of their own, bytes that are not UTF-8.
void expect_harmless(const std::string& text) {
  for (size_t i = 0; i < text.size(); i++) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    EXPECT_TRUE(c >= 0x20 || c == '\n') << "control " << int{c} << " at " << i;
    EXPECT_NE(c, 0x7f) << i;
    const bool c1 = c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    EXPECT_FALSE(c1) << i;
    EXPECT_LT(c, 0xf5) << i;
  }
  EXPECT_EQ(text.find("\nforged"), std::string::npos);
}

TEST_F(Report, HostileNamesDoNotReachTheTerminal) {
  const std::string evil = "\x1b]0;x\x07\nforged\r\t\x7f\xc2\x9b" "2J\xff\x9b";
  Capture& capture = made_.capture();
  capture.host = capture.kernel = capture.target = evil;
  capture.tiers = {evil};
  capture.quality.lost = {{evil, 3}};
  for (Process& process : capture.processes) {
    process.comm = process.exe = process.language = evil;
  }
  for (auto& stack : made_.frames()) {
    for (Frame& frame : stack) {
      frame.function += evil;
      frame.file = frame.module = evil;
    }
  }
  // With the functions' names, and with the variables'.
  for (const bool variables : {false, true}) {
    if (variables) {
      for (Lock& lock : capture.locks) lock.object = evil;
    }
    const Diagnosis diagnosis = this->diagnosis();
    ASSERT_GE(diagnosis.findings.size(), 3u);
    expect_harmless(diagnosis_text(diagnosis));
    for (const SortKey key : {SortKey::Wait, SortKey::Count, SortKey::Max, SortKey::Hold, SortKey::Blame}) {
      expect_harmless(tables_text(diagnosis, key));
    }
    // JSON escapes them, and stays JSON.
    EXPECT_TRUE(json::accept(diagnosis_json(diagnosis)));
    EXPECT_TRUE(json::accept(tables_json(diagnosis, SortKey::Wait)));
  }
}

TEST_F(Report, DiagnosisInWords) {
  made_.capture().target = "pid 77";
  made_.capture().kernel = "6.1.0";
  const std::string text = diagnosis_text(diagnosis());
  EXPECT_TRUE(text.starts_with("lockscope: pid 77, 10.0 s, tier: futex, kernel 6.1.0\n"));
  const auto has = [&](const char* part) { return text.find(part) != std::string::npos; };
  EXPECT_TRUE(has("1. bug: long-hold (confidence 0.75)\n   mutex in Store::append in app[77], at 0x1000\n")) << text;
  EXPECT_TRUE(has("   - held 9.00 ms on average (at most 9.00 ms), 90 times after a wait\n")) << text;
  EXPECT_TRUE(has("   waiting:\n      100 %  1.00 s, 100 waits\n             Store::append store.cc:42 (inlined) [app]\n"
                  "             main [app]\n")) << text;
  EXPECT_TRUE(has("(no stack)")) << text;
  EXPECT_TRUE(has("2. unknown: unknown\n   mutex in other::work in other[78], at 0x3000\n")) << text;
  EXPECT_TRUE(has("Healthy: app[77] waited 6.00 s for work, time or a thread's end at 1 place, most of it at "
                  "cond in Queue::pop.\n")) << text;
  EXPECT_TRUE(has("Data: 100,000 futex calls; lost: nothing; ")) << text;
}

TEST_F(Report, LossesAreInEveryReport) {
  made_.capture().quality.lost = {{"exit_missed", 1234}, {"notices", 5}};
  made_.capture().quality.broken_stacks = 6;
  made_.capture().quality.truncated_stacks = 7;
  made_.capture().quality.guessed_stacks = 8;
  made_.capture().quality.self_cpu_share = 0.021;
  const Diagnosis diagnosis = this->diagnosis();
  const std::string line = quality_line(diagnosis);
  for (const char* part : {"lost: exit_missed 1,234, notices 5", "6 broken off", "7 ", "8 by frame pointers alone",
                           "2.1 % of the machine's CPU time"}) {
    EXPECT_NE(line.find(part), std::string::npos) << part << " in " << line;
  }
  EXPECT_NE(diagnosis_text(diagnosis).find(line), std::string::npos);
  EXPECT_NE(tables_text(diagnosis, SortKey::Wait).find(line), std::string::npos);
  EXPECT_EQ(flame_view(diagnosis, FlameMetric::Wait).notes, std::vector<std::string>{line});
}

TEST_F(Report, WithheldVerdictsSayWhy) {
  made_.capture().quality.lost = {{"exit_missed", 50'000}};
  const std::string text = diagnosis_text(diagnosis());
  EXPECT_NE(text.find("Verdicts withheld: 50,000 of 100,000 futex calls"), std::string::npos) << text;
  EXPECT_EQ(text.find("long-hold"), std::string::npos);
}

TEST(ReportOfNothing, SaysSo) {
  const Diagnosis nothing = diagnose({});
  EXPECT_NE(diagnosis_text(nothing).find("No waiting was seen.\n"), std::string::npos);
  EXPECT_NO_THROW(tables_text(nothing, SortKey::Wait));
  EXPECT_TRUE(json::parse(diagnosis_json(nothing))["findings"].empty());
  EXPECT_TRUE(flame_view(nothing, FlameMetric::Wait).stacks.empty());
}

TEST_F(Report, FramesOfJson) {
  const Diagnosis diagnosis = this->diagnosis();
  EXPECT_EQ(frames_json(diagnosis, kNone), json::array());
  const json frames = frames_json(diagnosis, mutex_);
  ASSERT_EQ(frames.size(), 4u);
  EXPECT_EQ(frames[0]["function"], "__lll_lock_wait") << "innermost first";
  EXPECT_EQ(frames[2], json::parse(R"({"function": "Store::append", "file": "store.cc", "line": 42,
                                       "module": "app", "inlined": true})"));
  EXPECT_EQ(frames[3]["file"], "");
  EXPECT_EQ(frames[3]["line"], 0);
  EXPECT_EQ(frames[3]["inlined"], false);
}

TEST_F(Report, FindingsOfJson) {
  const json document = json::parse(diagnosis_json(diagnosis()));
  EXPECT_EQ(document["schema"], "lockscope.diagnosis/1");
  EXPECT_EQ(document["capture"]["duration_s"], 10.0);
  EXPECT_EQ(document["capture"]["quality"]["sufficient"], true);
  ASSERT_EQ(document["findings"].size(), 3u);
  const json& finding = document["findings"][0];
  EXPECT_EQ(finding["shape"], "long-hold");
  EXPECT_EQ(finding["catalogue"], nullptr);
  EXPECT_EQ(finding["verdict"], "bug");
  EXPECT_EQ(finding["pid"], 77);
  EXPECT_EQ(finding["comm"], "app");
  EXPECT_EQ(finding["site"], json::parse(R"({"kind": "mutex", "address": "0x1000", "lock": true,
                                             "name": "mutex in Store::append", "shared": false})"));
  EXPECT_EQ(finding["wait"]["count"], 101);
  EXPECT_EQ(finding["wait"]["total_ns"], 1'005'000'000);
  EXPECT_EQ(finding["wait"]["max_ns"], 10'000'000);
  EXPECT_EQ(finding["wait"]["in_flight"], 1);
  EXPECT_EQ(finding["hold"]["count"], 90);
  EXPECT_EQ(finding["hold"]["total_ns"], 810'000'000);
  EXPECT_EQ(finding["hold"]["max_ns"], 9'000'000);
  EXPECT_EQ(finding["hold"]["running_ns"], nullptr);
  EXPECT_EQ(finding["blame_ns"], 1'005'000'000);
  EXPECT_EQ(finding["unreleased_ns"], 7'000'000);
  EXPECT_EQ(finding["owner_tid"], 99);
  ASSERT_EQ(finding["waiter_stacks"].size(), 2u);
  EXPECT_EQ(finding["waiter_stacks"][0]["ns"], 1'000'000'000);
  EXPECT_EQ(finding["waiter_stacks"][0]["count"], 100);
  EXPECT_EQ(finding["waiter_stacks"][0]["frames"].size(), 4u);
  EXPECT_EQ(finding["waiter_stacks"][1]["frames"].size(), 0u);
  EXPECT_EQ(finding["holder_stacks"][0]["ns"], 990'000'000);
  EXPECT_EQ(document["findings"][2]["verdict"], "healthy");
  EXPECT_EQ(document["findings"][2]["catalogue"], 12);
  EXPECT_EQ(document["findings"][2]["owner_tid"], nullptr);
}

TEST_F(Report, ProcessesOfJson) {
  const json processes = json::parse(diagnosis_json(diagnosis()))["processes"];
  ASSERT_EQ(processes.size(), 2u);
  EXPECT_EQ(processes[0]["pid"], 77);
  EXPECT_EQ(processes[0]["lock_wait_ns"], 1'005'000'000);
  EXPECT_EQ(processes[0]["idle_wait_ns"], 6'000'000'000);
  EXPECT_EQ(processes[0]["blame_ns"], 1'005'000'000);
  EXPECT_EQ(processes[1]["pid"], 78);
  EXPECT_EQ(processes[1]["lock_wait_ns"], 80'000'000);
  EXPECT_EQ(processes[1]["blame_ns"], 80'000'000);
}

TEST_F(Report, AProgramThatBecameAnotherIsListedOnce) {
  made_.process(78, "sh");   // before its exec
  made_.process(80, "idle");  // never waited, but is the only one of its PID
  const json processes = json::parse(diagnosis_json(diagnosis()))["processes"];
  ASSERT_EQ(processes.size(), 3u);
  EXPECT_EQ(processes[1]["comm"], "other");
  EXPECT_EQ(processes[2]["comm"], "idle");
}

TEST_F(Report, TablesOfJson) {
  const Diagnosis diagnosis = this->diagnosis();
  const json document = json::parse(tables_json(diagnosis, SortKey::Count));
  EXPECT_EQ(document["schema"], "lockscope.report/1");
  ASSERT_EQ(document["locks"].size(), 3u);
  EXPECT_EQ(document["locks"][0]["wait"]["in_flight"], 1);
  EXPECT_EQ(document["locks"][0]["wait"]["in_flight_ns"], 10'000'000);
  EXPECT_EQ(document["locks"][0]["blame_ns"], 998'000'000);
  EXPECT_EQ(document["locks"][1]["kind"], "cond");
  EXPECT_EQ(document["locks"][1]["wait_ns"], 6'000'000'000);
  EXPECT_EQ(document["locks"][1]["wait"]["timeouts"], 2);
  EXPECT_EQ(document["locks"][2]["pid"], 78);
  // Rows refer to locks by their place in this very list.
  for (const json& row : document["wait_sites"]) {
    EXPECT_EQ(row["lock"], row["ns"] == 6'000'000'000 ? 1 : row["pid"] == 78 ? 2 : 0);
  }
  ASSERT_EQ(document["pairs"].size(), 2u);
  EXPECT_EQ(document["pairs"][0]["ns"], 900'000'000);
  EXPECT_EQ(document["pairs"][0]["lock"], 0);
  EXPECT_EQ(document["pairs"][0]["waker_frames"].size(), 3u);
  EXPECT_EQ(document["pairs"][1]["waker_pid"], 0);
  EXPECT_EQ(document["pairs"][1]["waker_frames"], json::array());
}

TEST_F(Report, TablesAreSortedByTheirKey) {
  made_.lock(app_, 0x5000, LS_TRAIT_VAL_2);
  made_.waits(3, mutex_, 1, 70'000'000);           // the longest wait of a lock
  made_.releases(3, unlock_, 1, 3'000'000'000, 5);  // and the most blame
  const Diagnosis diagnosis = this->diagnosis();
  const auto first = [&](SortKey key) -> std::string {
    const json document = json::parse(tables_json(diagnosis, key));
    for (const json& lock : document["locks"]) {
      if (lock["lock"] == true) return lock["address"];
    }
    return "";
  };
  EXPECT_EQ(first(SortKey::Wait), "0x1000");
  EXPECT_EQ(first(SortKey::Count), "0x1000");
  EXPECT_EQ(first(SortKey::Max), "0x5000");
  EXPECT_EQ(first(SortKey::Hold), "0x1000");
  EXPECT_EQ(first(SortKey::Blame), "0x5000");
}

TEST_F(Report, TablesInText) {
  const std::string text = tables_text(diagnosis(), SortKey::Wait);
  const size_t locks = text.find("\nLOCKS: "), idle = text.find("\nIDLE: "), waits = text.find("\nWAIT SITES: "),
               holders = text.find("\nHOLDERS: "), pairs = text.find("\nPAIRS: ");
  EXPECT_LT(locks, idle);
  EXPECT_LT(idle, waits);
  EXPECT_LT(waits, holders);
  EXPECT_LT(holders, pairs);
  EXPECT_NE(pairs, std::string::npos);
  const size_t row = text.find("  mutex in Store::append ");
  ASSERT_NE(row, std::string::npos);
  const std::string line = text.substr(row, text.find('\n', row) - row);
  for (const char* cell : {" mutex ", " 1.00 s ", " 101 ", " 10.0 ms ", " 9.00 ms ", "  app[77]"}) {
    EXPECT_NE(line.find(cell), std::string::npos) << cell << " in " << line;
  }
  EXPECT_NE(text.find("(none seen: timeout, signal or before)"), std::string::npos);
}

TEST(Keys, AreThoseOfTheCommandLine) {
  EXPECT_EQ(parse_sort_key("wait"), SortKey::Wait);
  EXPECT_EQ(parse_sort_key("count"), SortKey::Count);
  EXPECT_EQ(parse_sort_key("max"), SortKey::Max);
  EXPECT_EQ(parse_sort_key("hold"), SortKey::Hold);
  EXPECT_EQ(parse_sort_key("blame"), SortKey::Blame);
  EXPECT_EQ(parse_sort_key("idle"), std::nullopt);
  EXPECT_EQ(parse_flame_metric("wait"), FlameMetric::Wait);
  EXPECT_EQ(parse_flame_metric("blame"), FlameMetric::Blame);
  EXPECT_EQ(parse_flame_metric("hold"), FlameMetric::Hold);
  EXPECT_EQ(parse_flame_metric("idle"), FlameMetric::Idle);
  EXPECT_EQ(parse_flame_metric(""), std::nullopt);
}

TEST_F(Report, FlameTotalsAreThoseOfTheTables) {
  const Diagnosis diagnosis = this->diagnosis();
  uint64_t lock_wait = 0, idle_wait = 0;
  int64_t blame = 0;
  for (const ProcessTotals& totals : diagnosis.view.totals) {
    lock_wait += totals.lock_wait_ns;
    idle_wait += totals.idle_wait_ns;
    blame += totals.blame_ns;
  }
  EXPECT_EQ(lock_wait, 1'085'000'000u);
  EXPECT_EQ(total(flame_view(diagnosis, FlameMetric::Wait)), lock_wait);
  EXPECT_EQ(total(flame_view(diagnosis, FlameMetric::Blame)), static_cast<uint64_t>(blame));
  EXPECT_EQ(total(flame_view(diagnosis, FlameMetric::Blame)), lock_wait);
  EXPECT_EQ(total(flame_view(diagnosis, FlameMetric::Idle)), idle_wait);
  EXPECT_EQ(total(flame_view(diagnosis, FlameMetric::Hold)), 810'000'000u);
}

TEST_F(Report, FlameStacksStandUnderTheirProcess) {
  made_.capture().stacks[theirs_].flags = LS_UNWIND_TRUNCATED;
  const Diagnosis diagnosis = this->diagnosis();
  const FlameGraph wait = flame_view(diagnosis, FlameMetric::Wait);
  EXPECT_EQ(wait.unit, "ns");
  EXPECT_EQ(wait.palette, FlamePalette::Wait);
  ASSERT_EQ(wait.stacks.size(), 3u);
  EXPECT_EQ(wait.stacks[0].frames,
            (std::vector<std::string>{"app[77]", "main [app]", "Store::append [app]",
                                      "pthread_mutex_lock [libc.so.6]", "__lll_lock_wait [libc.so.6]"}));
  EXPECT_EQ(wait.stacks[0].value, 1'000'000'000u);
  EXPECT_EQ(wait.stacks[0].count, 100u);
  EXPECT_EQ(wait.stacks[1].frames, (std::vector<std::string>{"app[77]", "(no stack)"}));
  EXPECT_EQ(wait.stacks[2].frames[0], "other[78]");
  EXPECT_EQ(wait.stacks[2].frames[1], "(stack incomplete)");
  const FlameGraph blame = flame_view(diagnosis, FlameMetric::Blame);
  EXPECT_EQ(blame.palette, FlamePalette::Blame);
  const auto unreleased = std::find_if(blame.stacks.begin(), blame.stacks.end(), [](const FlameStack& stack) {
    return stack.frames.back() == "(not released: mutex in Store::append)";
  });
  ASSERT_NE(unreleased, blame.stacks.end());
  EXPECT_EQ(unreleased->value, 7'000'000u);
}

TEST(FrameLine, SaysTheModuleOnce) {
  EXPECT_EQ(frame_line({"f", "", 0, "app", false}), "f [app]");
  EXPECT_EQ(frame_line({"app+0x12", "", 0, "app", false}), "app+0x12");
  EXPECT_EQ(frame_line({"f", "a b.cc", 7, "app", true}), "f a b.cc:7 (inlined) [app]");
  EXPECT_EQ(frame_line({"f", "", 0, "", false}), "f");
}

TEST_F(Report, ProcessLabel) {
  made_.capture().processes[other_].comm = "";
  const Diagnosis diagnosis = this->diagnosis();
  EXPECT_EQ(process_label(diagnosis, app_), "app[77]");
  EXPECT_EQ(process_label(diagnosis, other_), "?[78]");
  EXPECT_EQ(process_label(diagnosis, kNone), "?");
}

}  // namespace
}  // namespace lockscope
