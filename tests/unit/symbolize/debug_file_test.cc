#include "symbolize/debug_file.h"

#include <gtest/gtest.h>

#include <array>

#include "parse/local_parser.h"
#include "programs.h"

namespace lockscope {
namespace {

constexpr char kFunctions[] = R"(
  static __attribute__((noinline)) int hidden(int n) { __asm__ volatile(""); return n + 1; }
  int main(int argc, char** argv) { return hidden(argc); }
)";

class DebugFile : public ::testing::Test {
 protected:
  UniqueFd find(const std::string& path, const std::string& root) {
    const ElfFile file = open_elf(dir_ / "a");
    const auto links = parser_.links(file.fd());
    EXPECT_TRUE(links.ok());
    return find_debug_file(parser_, *links, path, {root});
  }

  std::string name_with(const UniqueFd& debug_file, uint64_t address) {
    const ElfFile file = open_elf(dir_ / "a");
    const auto loaded = parser_.load_symbols({.file = file.fd(), .debug_file = debug_file.get()});
    EXPECT_TRUE(loaded.ok());
    return parser_.find(loaded->id, std::array{address})->at(0).frames.at(0).function;
  }

  TempDir dir_;
  LocalParser parser_;
};

TEST_F(DebugFile, ByLinkWithCrc) {
  compile(kFunctions, dir_ / "a", "-O1 -Wl,--build-id=none");
  const auto truth = nm(dir_ / "a");
  run("cd " + dir_.path() + " && objcopy --only-keep-debug a a.debug && strip a && " +
      "objcopy --add-gnu-debuglink=a.debug a");
  EXPECT_EQ(open_elf(dir_ / "a").build_id(), "");
  EXPECT_EQ(name_with(find(dir_ / "a", "/"), truth.at("hidden")), "hidden");
  // In .debug/ as well, and through a link that stays inside the root.
  run("mkdir " + (dir_ / ".debug") + " && mv " + (dir_ / "a.debug") + " " + (dir_ / ".debug"));
  EXPECT_TRUE(find(dir_ / "a", "/"));
  EXPECT_TRUE(find("/a", dir_.path())) << "another root";
  // Any other content is not this file's.
  run("printf x >> " + (dir_ / ".debug/a.debug"));
  EXPECT_FALSE(find(dir_ / "a", "/"));
}

TEST_F(DebugFile, ByBuildId) {
  compile(kFunctions, dir_ / "a", "-O1");
  const auto truth = nm(dir_ / "a");
  const std::string id = open_elf(dir_ / "a").build_id();
  const std::string store = dir_ / ("root/usr/lib/debug/.build-id/" + id.substr(0, 2));
  run("mkdir -p " + store + " && objcopy --only-keep-debug " + (dir_ / "a") + " " + store + "/" +
      id.substr(2) + ".debug && strip " + (dir_ / "a"));
  EXPECT_EQ(name_with(find("/bin/a", dir_ / "root"), truth.at("hidden")), "hidden");

  // A file in its place that has another build id.
  compile("int main(void) { return 7; }", store + "/" + id.substr(2) + ".debug");
  EXPECT_FALSE(find("/bin/a", dir_ / "root"));
}

TEST(OpenInRoot, OnlyRegularFilesAndOnlyInside) {
  TempDir dir;
  run("mkdir " + (dir / "root"));
  write_file(dir / "outside", "x");
  write_file(dir / "root/inside", "x");
  run("cd " + (dir / "root") + " && mkfifo fifo && ln -s /inside absolute && ln -s " +
      (dir / "outside") + " escape && ln -s ../outside up && ln -s /dev/zero device");
  EXPECT_TRUE(open_in_root(dir / "root", "/inside").ok());
  EXPECT_TRUE(open_in_root(dir / "root", "/absolute").ok());
  EXPECT_TRUE(open_in_root(dir / "root", "/../inside").ok());
  for (const char* name : {"/fifo", "/escape", "/up", "/device", "/none", "/"}) {
    EXPECT_FALSE(open_in_root(dir / "root", name).ok()) << name;
  }
  EXPECT_FALSE(open_in_root("/", "/dev/zero").ok());
}

}  // namespace
}  // namespace lockscope
