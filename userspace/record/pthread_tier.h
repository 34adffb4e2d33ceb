#pragma once

#include <sys/types.h>

#include <map>
#include <set>
#include <string>

#include "base/result.h"
#include "parse/file_parser.h"
#include "probe/pthread_probe.h"

namespace lockscope {

/// The pthread tier of a recording: has probes in the processes that it is told of,
/// as soon as they have their libc.
class PthreadTier {
 public:
  static Result<PthreadTier> open(FutexProbe& futex, FileParser& parser, uint32_t stack_rate);

  const PthreadMaps& maps() const { return probe_.maps(); }

  uint64_t measured_run_ns() const { return probe_.measured_run_ns(); }
  void mark_holders(bool on) { probe_.mark_holders(on); }

  void begin() { probe_.begin_slice(); }
  /// Events do not count any more; probes are there still.
  void end();
  /// All probes go, which may take seconds on kernels before 6.6.
  void detach() { probe_.detach(); }

  /// Probes are to be in a process that has yet to become its program: in a libc like
  /// our own, from its first call on.
  void expect(pid_t pid);
  /// Probes are to be in this process: one that has become another program too.
  void want(pid_t pid);
  /// Places what is wanted and can be placed. Says on stderr what can't.
  void serve();

 private:
  PthreadTier(PthreadProbe probe, FileParser& parser) : probe_(std::move(probe)), parser_(&parser) {}

  PthreadProbe probe_;
  FileParser* parser_;
  std::set<pid_t> wanted_;
};

}  // namespace lockscope
