#include "record/mapping_watch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace lockscope {
namespace {

std::vector<uint8_t> record(uint32_t type, uint32_t pid, const std::string& name) {
  std::vector<uint8_t> bytes(40 + name.size() + 1);
  const perf_event_header header{type, 0, static_cast<uint16_t>(bytes.size())};
  std::memcpy(bytes.data(), &header, sizeof header);
  std::memcpy(bytes.data() + sizeof header, &pid, sizeof pid);
  std::memcpy(bytes.data() + 40, name.c_str(), name.size());
  return bytes;
}

TEST(MappingWatch, OnlyCodeFromFiles) {
  EXPECT_EQ(mapper_of(record(PERF_RECORD_MMAP, 77, "/lib/libc.so.6")), 77);
  EXPECT_EQ(mapper_of(record(PERF_RECORD_MMAP, 77, "//anon")), 0);
  EXPECT_EQ(mapper_of(record(PERF_RECORD_MMAP, 77, "[vdso]")), 0);
  EXPECT_EQ(mapper_of(record(PERF_RECORD_LOST, 77, "/lib/libc.so.6")), 0);
  EXPECT_EQ(mapper_of(record(PERF_RECORD_MMAP, 77, "")), 0);
  EXPECT_EQ(mapper_of({}), 0);
}

TEST(MappingWatch, HearsOfMappingsAsTheyAreMade) {
  MappingWatch watch;
  if (watch.descriptors().empty()) GTEST_SKIP() << "perf events of the whole system are refused";
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const auto heard = [&] {
    const auto mappers = watch.take();
    return std::count(mappers.begin(), mappers.end(), ::getpid());
  };
  (void)heard();
  // More than the buffer holds, if nobody took them.
  for (int i = 0; i < 2000; ++i) {
    void* code = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, file.get(), 0);
    ASSERT_NE(code, MAP_FAILED);
    ::munmap(code, 4096);
    ASSERT_EQ(heard(), 1) << i;
  }
  void* data = ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, file.get(), 0);
  ::munmap(data, 4096);
  EXPECT_EQ(heard(), 0) << "no code";
}

}  // namespace
}  // namespace lockscope
