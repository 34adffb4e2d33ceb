#include "record/mapping_watch.h"

#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

namespace lockscope {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kDataBytes = 16 * kPageBytes;  // a power of two

UniqueFd open_event(int cpu) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_DUMMY;
  attr.mmap = 1;
  attr.wakeup_events = 1;
  return UniqueFd(static_cast<int>(
      ::syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)));
}

}  // namespace

pid_t mapper_of(std::span<const uint8_t> record) {
  // perf_event_open(2): header, pid, tid, addr, len, pgoff, filename.
  struct Mmap {
    perf_event_header header;
    uint32_t pid, tid;
    uint64_t address, bytes, offset;
  };
  Mmap mmap;
  if (record.size() < sizeof mmap + 2) return 0;
  std::memcpy(&mmap, record.data(), sizeof mmap);
  if (mmap.header.type != PERF_RECORD_MMAP) return 0;
  // "//anon", "[vdso]" and the like have no file to make a table of.
  const uint8_t* name = record.data() + sizeof mmap;
  return name[0] == '/' && name[1] != '/' ? static_cast<pid_t>(mmap.pid) : 0;
}

MappingWatch::MappingWatch() {
  const long cpus = ::sysconf(_SC_NPROCESSORS_CONF);
  for (int cpu = 0; cpu < cpus; ++cpu) {
    Buffer buffer{open_event(cpu)};
    if (!buffer.event) continue;
    buffer.pages = ::mmap(nullptr, kPageBytes + kDataBytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                          buffer.event.get(), 0);
    if (buffer.pages == MAP_FAILED) continue;
    descriptors_.push_back(buffer.event.get());
    buffers_.push_back(std::move(buffer));
  }
}

MappingWatch::~MappingWatch() {
  for (const Buffer& buffer : buffers_) ::munmap(buffer.pages, kPageBytes + kDataBytes);
}

std::vector<pid_t> MappingWatch::take() {
  std::vector<pid_t> mappers;
  std::vector<uint8_t> record;
  for (const Buffer& buffer : buffers_) {
    auto* control = static_cast<perf_event_mmap_page*>(buffer.pages);
    const auto* data = static_cast<const uint8_t*>(buffer.pages) + kPageBytes;
    const uint64_t head = std::atomic_ref(control->data_head).load(std::memory_order_acquire);
    uint64_t tail = control->data_tail;
    // Records are multiples of 8 bytes and may go round the end.
    const auto copy = [&](void* to, uint64_t from, size_t bytes) {
      const size_t at = from % kDataBytes, first = std::min(bytes, kDataBytes - at);
      std::memcpy(to, data + at, first);
      std::memcpy(static_cast<uint8_t*>(to) + first, data, bytes - first);
    };
    while (head - tail >= sizeof(perf_event_header)) {
      perf_event_header header;
      copy(&header, tail, sizeof header);
      if (header.size < sizeof header || header.size > head - tail) break;
      record.resize(header.size);
      copy(record.data(), tail, record.size());
      tail += header.size;
      const pid_t pid = mapper_of(record);
      if (pid > 0 && std::find(mappers.begin(), mappers.end(), pid) == mappers.end())
        mappers.push_back(pid);
    }
    std::atomic_ref(control->data_tail).store(head, std::memory_order_release);
  }
  return mappers;
}

}  // namespace lockscope
