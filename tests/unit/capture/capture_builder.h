#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "capture/capture.h"

namespace lockscope {

/// Makes a capture by hand, a row at a time, for the stages behind recording.
class CaptureBuilder {
 public:
  CaptureBuilder() {
    symbolized_.capture.duration_ns = 10'000'000'000;
    symbolized_.capture.tiers = {"futex"};
    symbolized_.capture.quality.calls = 100'000;
  }

  Index process(int32_t pid, const std::string& comm) {
    Process process;
    process.id = static_cast<uint64_t>(pid) << 32;
    process.pid = pid;
    process.comm = comm;
    capture().processes.push_back(process);
    return last(capture().processes);
  }

  Lock& lock(Index process, uint64_t address, uint32_t traits = 0) {
    Lock lock;
    lock.id = 1000 + capture().locks.size();
    lock.process = process;
    lock.address = address;
    lock.traits = traits;
    capture().locks.push_back(lock);
    return capture().locks.back();
  }

  /// Functions, innermost first; "name@module" or "name", which is in "app".
  Index stack(Index process, std::initializer_list<const char*> functions) {
    Stack stack;
    stack.process = process;
    stack.flags = LS_UNWIND_COMPLETE;
    auto& frames = symbolized_.frames.emplace_back();
    for (const std::string function : functions) {
      const size_t at = function.find('@');
      Frame frame;
      frame.function = function.substr(0, at);
      frame.module = at == std::string::npos ? "app" : function.substr(at + 1);
      frames.push_back(frame);
      stack.addresses.push_back(0x1000 + frames.size());
    }
    capture().stacks.push_back(stack);
    return last(capture().stacks);
  }

  /// `count` ended waits of the same length.
  WaitRow& waits(Index lock, Index stack, uint64_t count, uint64_t each_ns) {
    WaitRow row;
    row.lock = lock;
    row.stack = stack;
    row.ended = durations(count, each_ns);
    row.sleeps = count;
    capture().waits.push_back(row);
    return capture().waits.back();
  }

  /// `count` releases with the waiting charged to them and, for each, a hold.
  ReleaseRow& releases(Index lock, Index stack, uint64_t count, uint64_t blame_ns,
                       uint64_t each_hold_ns = 0) {
    ReleaseRow row;
    row.lock = lock;
    row.stack = stack;
    row.count = count;
    row.blame_ns = blame_ns;
    if (each_hold_ns != 0) row.hold = durations(count, each_hold_ns);
    capture().releases.push_back(row);
    return capture().releases.back();
  }

  static Durations durations(uint64_t count, uint64_t each_ns) {
    Durations made;
    made.count = count;
    made.total_ns = count * each_ns;
    made.max_ns = count == 0 ? 0 : each_ns;
    size_t slot = 0;
    while (slot + 1 < LS_HIST_SLOTS && (each_ns >> (slot + 1)) != 0) slot++;
    made.histogram.slots[slot] = count;
    return made;
  }

  Capture& capture() { return symbolized_.capture; }
  std::vector<std::vector<Frame>>& frames() { return symbolized_.frames; }
  SymbolizedCapture& built() { return symbolized_; }

 private:
  template <class T>
  static Index last(const std::vector<T>& list) {
    return static_cast<Index>(list.size() - 1);
  }

  SymbolizedCapture symbolized_;
};

}  // namespace lockscope
