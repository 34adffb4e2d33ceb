#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <vector>

#include "base/fd.h"

namespace lockscope {

/// Hears of code that any process maps from a file (exec, dlopen), by a perf
/// event on each CPU that counts nothing and reports mappings: 12-33 us late,
/// mostly before the code runs. Where the kernel does not offer that it hears
/// nothing; then a stack in the code has to make the kernel ask for its table.
class MappingWatch {
 public:
  MappingWatch();
  ~MappingWatch();
  MappingWatch(const MappingWatch&) = delete;
  MappingWatch& operator=(const MappingWatch&) = delete;

  /// Readable when there is something to take.
  const std::vector<int>& descriptors() const { return descriptors_; }

  /// The processes that mapped code since the last call, each once. A full
  /// buffer (64 KiB a CPU, some 600 mappings) loses what comes then.
  std::vector<pid_t> take();

 private:
  struct Buffer {
    UniqueFd event;
    void* pages = nullptr;
  };
  std::vector<Buffer> buffers_;
  std::vector<int> descriptors_;
};

/// The process of a PERF_RECORD_MMAP of code from a file; 0 for other records.
pid_t mapper_of(std::span<const uint8_t> record);

}  // namespace lockscope
