#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "capture/capture.h"
#include "symbolize/symbolizer.h"

namespace lockscope {

/// What is known of the processes that were seen, kept up while they live:
/// names, mappings, and (in the symbolizer) the symbols of their files, so that
/// stacks can be named after they are gone.
class ProcessTable {
 public:
  ProcessTable(FileParser& parser, Symbolizer& symbolizer)
      : parser_(parser), symbolizer_(symbolizer) {}

  /// A process was seen (for the first time, or after exec). Reads what /proc
  /// says now; nothing is kept if it is gone already. Reading the symbols of a
  /// large program takes 0.1 s and more: what can't wait that long is done in
  /// `meanwhile`, called between files.
  void meet(uint64_t process, const std::function<void()>& meanwhile);

  /// Reads anew what may have changed: libraries loaded since, threads.
  void refresh();
  void refresh(pid_t pid, const std::function<void()>& meanwhile);

  /// Everything known, by process id. Processes never met are not in it.
  const std::map<uint64_t, Process>& processes() const { return processes_; }

 private:
  bool read_process(pid_t pid, Process& process);

  FileParser& parser_;
  Symbolizer& symbolizer_;
  std::map<uint64_t, Process> processes_;
  // Who has a PID now, and since when (clock ticks after boot): a PID that is
  // used again is not refreshed under its old owner's name.
  struct Holder {
    uint64_t process;
    uint64_t start_ticks;
  };
  std::map<pid_t, Holder> holders_;
};

}  // namespace lockscope
