#include "process/maps.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

namespace lockscope {
namespace {

TEST(ParseMaps, EveryField) {
  const auto maps = parse_maps(
      "55d0c0a00000-55d0c0a21000 r-xp 00002000 fe:1a 123456                     /usr/bin/cat\n");
  ASSERT_EQ(maps.size(), 1u);
  const Mapping& map = maps[0];
  EXPECT_EQ(map.start, 0x55d0c0a00000u);
  EXPECT_EQ(map.end, 0x55d0c0a21000u);
  EXPECT_EQ(map.file_offset, 0x2000u);
  EXPECT_EQ(map.inode, 123456u);
  EXPECT_EQ(map.dev_major, 0xfeu);
  EXPECT_EQ(map.dev_minor, 0x1au);
  EXPECT_TRUE(map.readable);
  EXPECT_FALSE(map.writable);
  EXPECT_TRUE(map.executable);
  EXPECT_FALSE(map.shared);
  EXPECT_FALSE(map.deleted);
  EXPECT_EQ(map.path, "/usr/bin/cat");
  EXPECT_TRUE(map.has_file());
}

TEST(ParseMaps, Permissions) {
  const auto maps = parse_maps(
      "1000-2000 ---p 00000000 00:00 0\n"
      "2000-3000 rw-s 00000000 00:01 7 /dev/shm/x\n"
      "3000-4000 -w-p 00000000 00:00 0\n");
  ASSERT_EQ(maps.size(), 3u);
  EXPECT_FALSE(maps[0].readable || maps[0].writable || maps[0].executable || maps[0].shared);
  EXPECT_TRUE(maps[1].readable && maps[1].writable && maps[1].shared);
  EXPECT_FALSE(maps[1].executable);
  EXPECT_TRUE(maps[2].writable);
  EXPECT_FALSE(maps[2].readable);
}

TEST(ParseMaps, WithoutAPath) {
  // With and without the padding, and without a newline at the end.
  for (const char* text : {"1000-2000 rw-p 00000000 00:00 0 \n", "1000-2000 rw-p 00000000 00:00 0\n",
                           "1000-2000 rw-p 00000000 00:00 0"}) {
    const auto maps = parse_maps(text);
    ASSERT_EQ(maps.size(), 1u) << text;
    EXPECT_EQ(maps[0].path, "");
    EXPECT_EQ(maps[0].inode, 0u);
    EXPECT_FALSE(maps[0].has_file());
  }
}

TEST(ParseMaps, SpecialMappingsAreNoFiles) {
  const auto maps = parse_maps(
      "7ffc1000-7ffc3000 r-xp 00000000 00:00 0                          [vdso]\n"
      "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
      "7f0000000000-7f0000001000 rw-p 00000000 00:00 0    [anon: my arena]\n");
  ASSERT_EQ(maps.size(), 3u);
  EXPECT_EQ(maps[0].path, "[vdso]");
  EXPECT_FALSE(maps[0].has_file());
  EXPECT_EQ(maps[1].start, 0xffffffffff600000u);
  EXPECT_EQ(maps[1].path, "[vsyscall]");
  EXPECT_EQ(maps[2].path, "[anon: my arena]");
}

TEST(ParseMaps, DeletedFiles) {
  const auto maps = parse_maps(
      "1000-2000 r-xp 00000000 08:01 42 /opt/app/server (deleted)\n"
      "2000-3000 r-xp 00000000 00:01 43 /memfd:jit code (deleted)\n"
      "3000-4000 r-xp 00000000 08:01 44 /tmp/not(deleted)\n"
      "4000-5000 r-xp 00000000 08:01 45 /tmp/x (deleted) (deleted)\n");
  ASSERT_EQ(maps.size(), 4u);
  EXPECT_TRUE(maps[0].deleted);
  EXPECT_EQ(maps[0].path, "/opt/app/server");
  EXPECT_TRUE(maps[1].deleted);
  EXPECT_EQ(maps[1].path, "/memfd:jit code");
  EXPECT_FALSE(maps[2].deleted);
  EXPECT_EQ(maps[2].path, "/tmp/not(deleted)");
  EXPECT_TRUE(maps[3].deleted);
  EXPECT_EQ(maps[3].path, "/tmp/x (deleted)") << "the kernel adds one";
}

TEST(ParseMaps, SpacesAndEscapesInPathsStay) {
  const auto maps = parse_maps(
      "1000-2000 r-xp 00000000 08:01 42      /home/a b/my  program\n"
      "2000-3000 r-xp 00000000 08:01 43 /tmp/new\\012line \n");
  ASSERT_EQ(maps.size(), 2u);
  EXPECT_EQ(maps[0].path, "/home/a b/my  program");
  EXPECT_EQ(maps[1].path, "/tmp/new\\012line ");
}

TEST(ParseMaps, LinesThatDoNotParseAreLeftOut) {
  const auto maps = parse_maps(
      "\n"
      "garbage\n"
      "1000\n"
      "1000-\n"
      "1000-2000\n"
      "1000-2000 r-x\n"
      "1000-2000 r-xp \n"
      "1000-2000 r-xp 00000000\n"
      "1000-2000 r-xp 00000000 08:01\n"
      "1000-2000 r-xp 00000000 08:01 \n"
      "1000-2000 r-xp 00000000 08:01 inode /x\n"
      "-1000-2000 r-xp 00000000 08:01 1 /x\n"
      "1000-11112222333344445 r-xp 00000000 08:01 1 /x\n"  // beyond 64 bits
      "1000-2000 r-xp 00000000 0801 1 /x\n"
      "3000-4000 r-xp 00000000 08:01 7 /good\n"
      "5000-60");
  ASSERT_EQ(maps.size(), 1u);
  EXPECT_EQ(maps[0].start, 0x3000u);
  EXPECT_EQ(maps[0].path, "/good");
  EXPECT_TRUE(parse_maps("").empty());
}

// What is left when /proc/PID/maps is read while the process dies.
TEST(ParseMaps, AnyPrefixOfATextParses) {
  const std::string text =
      "1000-2000 r-xp 00000000 08:01 42 /usr/lib/a.so (deleted)\n"
      "3000-4000 rw-p 00000000 00:00 0 \n"
      "5000-6000 r-xp 00001000 08:01 43 /usr/lib/b.so\n";
  for (size_t length = 0; length <= text.size(); length++) {
    const auto maps = parse_maps(text.substr(0, length));
    ASSERT_LE(maps.size(), 3u);
    for (const Mapping& map : maps) EXPECT_EQ(map.end - map.start, 0x1000u);
  }
}

TEST(FindMapping, FirstByteToLastByte) {
  const auto maps = parse_maps(
      "1000-2000 r-xp 00000000 08:01 1 /a\n"
      "2000-3000 r-xp 00000000 08:01 2 /b\n"
      "5000-6000 r-xp 00000000 08:01 3 /c\n");
  const auto path_at = [&](uint64_t address) -> std::string {
    const Mapping* map = find_mapping(maps, address);
    return map == nullptr ? "none" : map->path;
  };
  EXPECT_EQ(path_at(0), "none");
  EXPECT_EQ(path_at(0xfff), "none");
  EXPECT_EQ(path_at(0x1000), "/a");
  EXPECT_EQ(path_at(0x1fff), "/a");
  EXPECT_EQ(path_at(0x2000), "/b");
  EXPECT_EQ(path_at(0x3000), "none");
  EXPECT_EQ(path_at(0x4fff), "none");
  EXPECT_EQ(path_at(0x5fff), "/c");
  EXPECT_EQ(path_at(0x6000), "none");
  EXPECT_EQ(path_at(UINT64_MAX), "none");
  EXPECT_EQ(find_mapping({}, 1), nullptr);
}

TEST(ReadMaps, OurOwn) {
  const auto maps = read_maps(::getpid());
  ASSERT_TRUE(maps.ok()) << maps.error().message;
  static const int here = 1;
  const Mapping* map = find_mapping(*maps, reinterpret_cast<uint64_t>(&here));
  ASSERT_NE(map, nullptr);
  EXPECT_TRUE(map->has_file());
  EXPECT_TRUE(map->readable);
  EXPECT_FALSE(map->writable);
}

TEST(ReadMaps, OfNobodyIsAnError) {
  const auto maps = read_maps(0x7fffffff);  // above pid_max
  ASSERT_FALSE(maps.ok());
  EXPECT_NE(maps.error().message.find("/proc/2147483647/maps"), std::string::npos);
}

}  // namespace
}  // namespace lockscope
