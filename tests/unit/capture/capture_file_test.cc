#include "capture/capture_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zstd.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "../symbolize/programs.h"
#include "capture_builder.h"

namespace lockscope {
namespace {

using nlohmann::json;

// Each field another number, so that two that are swapped are seen.
Durations numbered(uint64_t from) {
  Durations made;
  made.count = from;
  made.total_ns = from + 1;
  made.max_ns = from + 2;
  for (size_t i = 0; i < made.histogram.slots.size(); i++) made.histogram.slots[i] = from + 3 + i;
  return made;
}

SymbolizedCapture full_capture() {
  SymbolizedCapture made;
  Capture& capture = made.capture;
  capture.host = "host";
  capture.kernel = "6.1.0";
  capture.target = "-p 77 \"quoted\" \\ \n";
  capture.start_unix_ns = -5;
  capture.duration_ns = UINT64_MAX;
  capture.tiers = {"futex", "holder"};
  capture.quality.lost = {{"exit_missed", 3}, {"notices", 4}};
  capture.quality.truncated_stacks = 5;
  capture.quality.broken_stacks = 6;
  capture.quality.guessed_stacks = 7;
  capture.quality.complete_stacks = 8;
  capture.quality.unmatched = 9;
  capture.quality.calls = 10;
  capture.quality.stacks_taken = 11;
  capture.quality.self_cpu_share = 0.0123456789;

  Process process;
  process.id = (77ull << 32) | 5;
  process.pid = 77;
  process.comm = "sërver";
  process.exe = "/opt/a b/server";
  process.language = "c++";
  process.threads = 12;
  Mapping mapping;
  mapping.start = 0xffffffffff600000;
  mapping.end = 0xffffffffff601000;
  mapping.file_offset = 0x2000;
  mapping.inode = 13;
  mapping.dev_major = 14;
  mapping.dev_minor = 15;
  mapping.deleted = true;
  mapping.path = "/opt/a b/server";
  process.mappings = {mapping, Mapping{}};
  capture.processes = {process, Process{}};

  Lock lock;
  lock.id = 0xfedcba9876543210;
  lock.process = 1;
  lock.shared = true;
  lock.address = 16;
  lock.inode = 17;
  lock.file_offset = 18;
  lock.device = 19;
  lock.traits = 20;
  lock.max_waiters = 21;
  lock.waiter_threads = 22;
  lock.releaser_threads = 23;
  lock.waited_releases = 24;
  lock.self_releases = 25;
  lock.refused_holds = 26;
  lock.unreleased_ns = -27;
  lock.area_ns = 28;
  lock.owner_tid = 29;
  lock.object = "g_lock";
  lock.object_offset = 0x18;
  capture.locks = {lock, Lock{}};

  capture.stacks = {{0, 3, {1, 2, UINT64_MAX}}, {kNone, 0, {}}, {1, 1, {4}}};
  WaitRow wait;
  wait.lock = 1;
  wait.stack = 2;
  wait.ended = numbered(100);
  wait.sleeps = 30;
  wait.timeouts = 31;
  wait.in_flight = 32;
  wait.in_flight_ns = 33;
  wait.in_flight_max_ns = 34;
  wait.before_capture = 35;
  capture.waits = {wait, WaitRow{}};
  ReleaseRow release;
  release.lock = 0;
  release.stack = 1;
  release.count = 36;
  release.blame_ns = 37;
  release.hold = numbered(200);
  capture.releases = {release, ReleaseRow{}};
  capture.pairs = {{1, 2, 0, 38, 39}, PairRow{}};
  PthreadObject object;
  object.process = 1;
  object.address = 0x7f0000002000;
  object.kind = 1;
  object.hold.count = 40;
  object.hold.total_ns = 41;
  object.contended = 42;
  object.object = "g_lock";
  capture.objects = {object, PthreadObject{}};
  capture.holds = {{0, 1, 43, 44}, HoldRow{}};
  capture.orders = {{0, 1, 2, 45, 46}, OrderRow{}};

  const Frame plain{"main", "main.cc", 12, "app", false};
  Frame inlined = plain;
  inlined.inlined = true;
  Frame other_line = plain;
  other_line.line = 13;
  Frame other_module = plain;
  other_module.module = "lib";
  Frame other_file = plain;
  other_file.file = "main.h";
  made.frames = {{plain, inlined, other_line, plain}, {}, {other_module, other_file, Frame{}}};
  return made;
}

void expect_same(const Durations& a, const Durations& b) {
  EXPECT_EQ(a.count, b.count);
  EXPECT_EQ(a.total_ns, b.total_ns);
  EXPECT_EQ(a.max_ns, b.max_ns);
  EXPECT_EQ(a.histogram.slots, b.histogram.slots);
}

void expect_same(const Capture& a, const Capture& b) {
  EXPECT_EQ(a.host, b.host);
  EXPECT_EQ(a.kernel, b.kernel);
  EXPECT_EQ(a.target, b.target);
  EXPECT_EQ(a.start_unix_ns, b.start_unix_ns);
  EXPECT_EQ(a.duration_ns, b.duration_ns);
  EXPECT_EQ(a.tiers, b.tiers);
  EXPECT_EQ(a.quality.lost, b.quality.lost);
  EXPECT_EQ(a.quality.truncated_stacks, b.quality.truncated_stacks);
  EXPECT_EQ(a.quality.broken_stacks, b.quality.broken_stacks);
  EXPECT_EQ(a.quality.guessed_stacks, b.quality.guessed_stacks);
  EXPECT_EQ(a.quality.complete_stacks, b.quality.complete_stacks);
  EXPECT_EQ(a.quality.unmatched, b.quality.unmatched);
  EXPECT_EQ(a.quality.calls, b.quality.calls);
  EXPECT_EQ(a.quality.stacks_taken, b.quality.stacks_taken);
  EXPECT_EQ(a.quality.self_cpu_share, b.quality.self_cpu_share);
  ASSERT_EQ(a.processes.size(), b.processes.size());
  for (size_t i = 0; i < a.processes.size(); i++) {
    const Process &p = a.processes[i], &q = b.processes[i];
    EXPECT_EQ(p.id, q.id);
    EXPECT_EQ(p.pid, q.pid);
    EXPECT_EQ(p.comm, q.comm);
    EXPECT_EQ(p.exe, q.exe);
    EXPECT_EQ(p.language, q.language);
    EXPECT_EQ(p.threads, q.threads);
    ASSERT_EQ(p.mappings.size(), q.mappings.size());
    for (size_t k = 0; k < p.mappings.size(); k++) {
      const Mapping &m = p.mappings[k], &n = q.mappings[k];
      EXPECT_EQ(m.start, n.start);
      EXPECT_EQ(m.end, n.end);
      EXPECT_EQ(m.file_offset, n.file_offset);
      EXPECT_EQ(m.inode, n.inode);
      EXPECT_EQ(m.dev_major, n.dev_major);
      EXPECT_EQ(m.dev_minor, n.dev_minor);
      EXPECT_EQ(m.deleted, n.deleted);
      EXPECT_EQ(m.path, n.path);
    }
  }
  ASSERT_EQ(a.locks.size(), b.locks.size());
  for (size_t i = 0; i < a.locks.size(); i++) {
    const Lock &p = a.locks[i], &q = b.locks[i];
    EXPECT_EQ(p.id, q.id);
    EXPECT_EQ(p.process, q.process);
    EXPECT_EQ(p.shared, q.shared);
    EXPECT_EQ(p.address, q.address);
    EXPECT_EQ(p.inode, q.inode);
    EXPECT_EQ(p.file_offset, q.file_offset);
    EXPECT_EQ(p.device, q.device);
    EXPECT_EQ(p.traits, q.traits);
    EXPECT_EQ(p.max_waiters, q.max_waiters);
    EXPECT_EQ(p.waiter_threads, q.waiter_threads);
    EXPECT_EQ(p.releaser_threads, q.releaser_threads);
    EXPECT_EQ(p.waited_releases, q.waited_releases);
    EXPECT_EQ(p.self_releases, q.self_releases);
    EXPECT_EQ(p.refused_holds, q.refused_holds);
    EXPECT_EQ(p.unreleased_ns, q.unreleased_ns);
    EXPECT_EQ(p.area_ns, q.area_ns);
    EXPECT_EQ(p.owner_tid, q.owner_tid);
    EXPECT_EQ(p.object, q.object);
    EXPECT_EQ(p.object_offset, q.object_offset);
  }
  ASSERT_EQ(a.stacks.size(), b.stacks.size());
  for (size_t i = 0; i < a.stacks.size(); i++) {
    EXPECT_EQ(a.stacks[i].process, b.stacks[i].process);
    EXPECT_EQ(a.stacks[i].flags, b.stacks[i].flags);
    EXPECT_EQ(a.stacks[i].addresses, b.stacks[i].addresses);
  }
  ASSERT_EQ(a.waits.size(), b.waits.size());
  for (size_t i = 0; i < a.waits.size(); i++) {
    const WaitRow &p = a.waits[i], &q = b.waits[i];
    EXPECT_EQ(p.lock, q.lock);
    EXPECT_EQ(p.stack, q.stack);
    expect_same(p.ended, q.ended);
    EXPECT_EQ(p.sleeps, q.sleeps);
    EXPECT_EQ(p.timeouts, q.timeouts);
    EXPECT_EQ(p.in_flight, q.in_flight);
    EXPECT_EQ(p.in_flight_ns, q.in_flight_ns);
    EXPECT_EQ(p.in_flight_max_ns, q.in_flight_max_ns);
    EXPECT_EQ(p.before_capture, q.before_capture);
  }
  ASSERT_EQ(a.releases.size(), b.releases.size());
  for (size_t i = 0; i < a.releases.size(); i++) {
    const ReleaseRow &p = a.releases[i], &q = b.releases[i];
    EXPECT_EQ(p.lock, q.lock);
    EXPECT_EQ(p.stack, q.stack);
    EXPECT_EQ(p.count, q.count);
    EXPECT_EQ(p.blame_ns, q.blame_ns);
    expect_same(p.hold, q.hold);
  }
  ASSERT_EQ(a.objects.size(), b.objects.size());
  for (size_t i = 0; i < a.objects.size(); i++) {
    const PthreadObject &p = a.objects[i], &q = b.objects[i];
    EXPECT_EQ(std::tie(p.process, p.address, p.kind, p.hold.count, p.hold.total_ns, p.contended,
                       p.object),
              std::tie(q.process, q.address, q.kind, q.hold.count, q.hold.total_ns, q.contended,
                       q.object));
  }
  ASSERT_EQ(a.holds.size(), b.holds.size());
  for (size_t i = 0; i < a.holds.size(); i++) {
    const HoldRow &p = a.holds[i], &q = b.holds[i];
    EXPECT_EQ(std::tie(p.object, p.stack, p.count, p.total_ns),
              std::tie(q.object, q.stack, q.count, q.total_ns));
  }
  ASSERT_EQ(a.orders.size(), b.orders.size());
  for (size_t i = 0; i < a.orders.size(); i++) {
    const OrderRow &p = a.orders[i], &q = b.orders[i];
    EXPECT_EQ(std::tie(p.held, p.wanted, p.stack, p.count, p.tid),
              std::tie(q.held, q.wanted, q.stack, q.count, q.tid));
  }
  ASSERT_EQ(a.pairs.size(), b.pairs.size());
  for (size_t i = 0; i < a.pairs.size(); i++) {
    const PairRow &p = a.pairs[i], &q = b.pairs[i];
    EXPECT_EQ(p.lock, q.lock);
    EXPECT_EQ(p.waiter, q.waiter);
    EXPECT_EQ(p.waker, q.waker);
    EXPECT_EQ(p.count, q.count);
    EXPECT_EQ(p.total_ns, q.total_ns);
  }
}

std::string compressed(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 1));
  return packed;
}

json document_of(const std::string& path) {
  const std::string packed = read_all(path);
  std::string text(ZSTD_getFrameContentSize(packed.data(), packed.size()), '\0');
  EXPECT_EQ(ZSTD_decompress(text.data(), text.size(), packed.data(), packed.size()), text.size());
  return json::parse(text);
}

class CaptureFile : public testing::Test {
 protected:
  void SetUp() override {
    const Status saved = save_capture(full_capture(), path_);
    ASSERT_TRUE(saved.ok()) << saved.error().message;
  }

  // Whether the capture still loads once its document was changed.
  bool loads_with(const std::function<void(json&)>& change) {
    json document = document_of(path_);
    change(document);
    write_file(directory_ / "changed", compressed(document.dump()));
    auto loaded = load_capture(directory_ / "changed");
    if (!loaded.ok()) message_ = loaded.error().message;
    return loaded.ok();
  }

  TempDir directory_;
  const std::string path_ = directory_ / "capture";
  std::string message_;
};

TEST_F(CaptureFile, EveryFieldComesBack) {
  const auto loaded = load_capture(path_);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  expect_same(loaded->capture, full_capture().capture);
  EXPECT_EQ(loaded->frames, full_capture().frames);
}

TEST_F(CaptureFile, AnEmptyCaptureComesBack) {
  ASSERT_TRUE(save_capture({}, path_).ok());
  const auto loaded = load_capture(path_);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_TRUE(loaded->capture.locks.empty());
  EXPECT_TRUE(loaded->frames.empty());
}

TEST_F(CaptureFile, NamesStandOnce) {
  const json document = document_of(path_);
  EXPECT_EQ(document["schema"], "lockscope.capture/1");
  EXPECT_EQ(document["frames"].size(), 6u);
  EXPECT_EQ(document["stack_frames"], json::parse("[[0,1,2,0],[],[3,4,5]]"));
}

TEST_F(CaptureFile, NamesThatAreNotUtf8) {
  SymbolizedCapture capture = full_capture();
  capture.capture.processes[0].comm = "caf\xe9\xff";
  capture.frames[0][0].function = "\xf0\x28\x8c\x28";
  capture.capture.quality.lost["\xfe"] = 1;
  ASSERT_TRUE(save_capture(capture, path_).ok());
  const auto loaded = load_capture(path_);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(loaded->capture.processes[0].comm, "caf\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(loaded->frames[0][0].function, "\xef\xbf\xbd(\xef\xbf\xbd(");
}

TEST_F(CaptureFile, CutAnywhereIsAnError) {
  const std::string whole = read_all(path_);
  ASSERT_GT(whole.size(), 640u);
  for (size_t length = 0; length < whole.size(); length += 64) {
    write_file(directory_ / "cut", whole.substr(0, length));
    const auto loaded = load_capture(directory_ / "cut");
    ASSERT_FALSE(loaded.ok()) << length << " of " << whole.size() << " bytes";
    EXPECT_NE(loaded.error().message.find("truncated"), std::string::npos) << length;
  }
  write_file(directory_ / "cut", whole.substr(0, whole.size() - 1));
  EXPECT_FALSE(load_capture(directory_ / "cut").ok());
}

// The checksum finds them, but for the few bits of zstd's own that mean nothing.
TEST_F(CaptureFile, AFlippedBitIsAnErrorOrWithoutEffect) {
  const std::string whole = read_all(path_);
  const std::string good = document_of(path_).dump();
  size_t rejected = 0;
  for (size_t at = 0; at < whole.size(); at++) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
    write_file(directory_ / "damaged", damaged);
    auto loaded = load_capture(directory_ / "damaged");
    if (!loaded.ok()) {
      rejected++;
      continue;
    }
    ASSERT_TRUE(save_capture(*loaded, directory_ / "again").ok());
    EXPECT_EQ(document_of(directory_ / "again").dump(), good) << "byte " << at;
  }
  EXPECT_GE(rejected, whole.size() * 98 / 100);
}

TEST_F(CaptureFile, ErrorsNameTheFile) {
  EXPECT_NE(load_capture(directory_ / "none").error().message.find("/none"), std::string::npos);
  for (const std::string content : {"", "not zstd", "\x28\xb5\x2f\xfd"}) {
    write_file(directory_ / "bad", content);
    const auto loaded = load_capture(directory_ / "bad");
    ASSERT_FALSE(loaded.ok()) << content;
    EXPECT_NE(loaded.error().message.find("/bad is not a lockscope capture"), std::string::npos);
  }
  for (const std::string content : {"", "{", "[]", "{}", "null", "\"lockscope.capture/1\"",
                                    "{\"schema\": \"lockscope.capture/1\"}", "{\"schema\": 1}"}) {
    write_file(directory_ / "bad", compressed(content));
    EXPECT_FALSE(load_capture(directory_ / "bad").ok()) << content;
  }
}

TEST_F(CaptureFile, AnotherSchemaIsNamed) {
  EXPECT_FALSE(loads_with([](json& d) { d["schema"] = "lockscope.capture/2"; }));
  EXPECT_NE(message_.find("lockscope.capture/2"), std::string::npos);
  EXPECT_NE(message_.find("reads lockscope.capture/1"), std::string::npos);
}

TEST_F(CaptureFile, IndicesOutOfRange) {
  ASSERT_TRUE(loads_with([](json&) {}));
  const std::pair<const char*, size_t> kBad[] = {
      {"/capture/locks/0/process", 2},   {"/capture/stacks/0/process", 2},
      {"/capture/waits/0/lock", 2},      {"/capture/waits/0/stack", 3},
      {"/capture/releases/0/lock", 2},   {"/capture/releases/0/stack", 3},
      {"/capture/pairs/0/lock", 2},      {"/capture/pairs/0/waiter", 3},
      {"/capture/pairs/0/waker", 3},     {"/stack_frames/0/0", 6},
      {"/capture/objects/0/process", 2}, {"/capture/holds/0/object", 2},
      {"/capture/holds/0/stack", 3},     {"/capture/orders/0/held", 2},
      {"/capture/orders/0/wanted", 2},   {"/capture/orders/0/stack", 3},
  };
  for (const auto& [where, beyond] : kBad) {
    const json::json_pointer at(where);
    EXPECT_FALSE(loads_with([&](json& d) { d[at] = beyond; })) << where;
    EXPECT_FALSE(loads_with([&](json& d) { d[at] = -2; })) << where;
    EXPECT_FALSE(loads_with([&](json& d) { d[at] = 4294967294u; })) << where;
    EXPECT_TRUE(loads_with([&](json& d) { d[at] = beyond - 1; })) << where;
  }
  for (const char* where : {"/capture/locks/0/process", "/capture/pairs/0/waker"}) {
    EXPECT_TRUE(loads_with([&](json& d) { d[json::json_pointer(where)] = kNone; })) << where;
  }
}

TEST_F(CaptureFile, OfBeforeThereWasAPthreadTier) {
  EXPECT_TRUE(loads_with([](json& d) {
    for (const char* table : {"objects", "holds", "orders"}) d["capture"].erase(table);
  }));
  EXPECT_FALSE(loads_with([](json& d) { d["capture"] = 3; }));
}

TEST_F(CaptureFile, StacksAndTheirFramesGoTogether) {
  EXPECT_FALSE(loads_with([](json& d) { d["stack_frames"].push_back(json::array()); }));
  EXPECT_FALSE(loads_with([](json& d) { d["stack_frames"].erase(2); }));
}

TEST_F(CaptureFile, MissingOrMistypedFields) {
  for (const char* where : {"/capture/host", "/capture/quality/calls", "/capture/locks/0/area_ns",
                            "/capture/waits/0/ended/histogram/slots", "/capture/duration_ns"}) {
    const json::json_pointer at(where);
    EXPECT_FALSE(loads_with([&](json& d) { d[at.parent_pointer()].erase(at.back()); })) << where;
    EXPECT_FALSE(loads_with([&](json& d) { d[at] = json::object(); })) << where;
    EXPECT_FALSE(loads_with([&](json& d) { d[at] = nullptr; })) << where;
  }
  EXPECT_FALSE(loads_with([](json& d) {
    d["/capture/waits/0/ended/histogram/slots"_json_pointer] = json::array({1, 2, 3});
  }));
}

TEST(WriteOutput, ANewFileForAllThatTheMaskAllows) {
  TempDir directory;
  const mode_t mask = ::umask(027);
  const Status written = write_output(directory / "out", "one\n");
  ::umask(mask);
  ASSERT_TRUE(written.ok()) << written.error().message;
  EXPECT_EQ(read_all(directory / "out"), "one\n");
  struct stat info {};
  ASSERT_EQ(::stat((directory / "out").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0640u);
  EXPECT_EQ(::umask(mask), mask) << "the mask is as it was";
}

TEST(WriteOutput, ReplacesAFileAtOnce) {
  TempDir directory;
  write_file(directory / "out", std::string(100'000, 'x'));
  std::ifstream reader(directory / "out");
  ASSERT_TRUE(write_output(directory / "out", "short").ok());
  EXPECT_EQ(read_all(directory / "out"), "short");
  // Who had it open reads the old one to the end.
  const std::string old((std::istreambuf_iterator<char>(reader)), {});
  EXPECT_EQ(old, std::string(100'000, 'x'));
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    files++;
    EXPECT_EQ(entry.path().filename(), "out");
  }
  EXPECT_EQ(files, 1u) << "no temporary file is left";
}

TEST(WriteOutput, DevicesAreWrittenDirectly) {
  EXPECT_TRUE(write_output("/dev/null", "text").ok());
  const Status full = write_output("/dev/full", "text");
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().message, "cannot write /dev/full: No space left on device");
  EXPECT_EQ(full.error().kind, Error::Kind::Failed);
  struct stat info {};
  ASSERT_EQ(::stat("/dev/full", &info), 0);
  EXPECT_TRUE(S_ISCHR(info.st_mode)) << "not replaced by a file";
}

TEST(WriteOutput, WhereItCannotBe) {
  TempDir directory;
  const std::string missing = directory / "no/such/out";
  const Status written = write_output(missing, "text");
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().message, "cannot write " + missing + ": No such file or directory");
  EXPECT_FALSE(write_output(directory.path(), "text").ok()) << "a directory";
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(WriteOutput, NothingOfACaptureThatCannotBeSaved) {
  EXPECT_FALSE(save_capture(full_capture(), "/dev/full").ok());
}

}  // namespace
}  // namespace lockscope
