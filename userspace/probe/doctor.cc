#include "probe/doctor.h"

#include <sys/utsname.h>
#include <unistd.h>

#include "parse/sandboxed_parser.h"
#include "probe/census_probe.h"
#include "probe/futex_probe.h"
#include "probe/holder_probe.h"
#include "probe/pthread_probe.h"
#include "probe/tracepoint.h"
#include "record/mapping_watch.h"
#include "record/target.h"
#include "unwind.h"

namespace lockscope {
namespace {

using State = Check::State;

Check check_tracepoints(const Tracefs& tracefs) {
  std::string missing;
  for (const char* name : {"futex_waitv", "futex_wait", "futex_wake", "futex_requeue"}) {
    if (!tracefs.tracepoint_id(std::string("syscalls/sys_enter_") + name)) {
      missing += (missing.empty() ? "" : ", ") + std::string(name);
    }
  }
  if (!tracefs.tracepoint_id("syscalls/sys_enter_futex")) {
    return {State::Missing, "system call tracepoints",
            "this kernel has none for futex: needs CONFIG_FTRACE_SYSCALLS"};
  }
  if (missing.empty()) return {State::Ok, "system call tracepoints", "all futex calls"};
  return {State::Ok, "system call tracepoints",
          "futex; this kernel does not have " + missing + ", so nothing is missed"};
}

// Both variants of the programs walk as deep: a walk is one call of a global
// function a frame, which the verifier looks at once (bpf/unwind.bpf.h).
Check check_stacks() {
  const std::string depth = "up to " + std::to_string(LS_UNWIND_MAX_FRAMES) + " frames deep";
  if (!MappingWatch().descriptors().empty()) return {State::Ok, "stacks", depth};
  return {State::Degraded, "stacks",
          depth + "; perf events are refused, so those in libraries loaded while recording are "
                  "incomplete for the first 0.1 s: see kernel.perf_event_paranoid"};
}

Check check_pthread_tier(FutexProbe& futex) {
  const auto probe = PthreadProbe::open(futex, kDefaultStackRate);
  if (!probe) return {State::Degraded, "pthread tier", probe.error().message};
  if (probe->fast()) return {State::Ok, "pthread tier", "probes of a process come and go at once"};
  return {State::Degraded, "pthread tier",
          futex.variant() == "modern"
              ? "probes go one after another, up to 0.1 s each: that is faster from Linux 6.6 on"
              : "glibc's functions only, musl's from Linux 5.15 on; probes go one after another, up "
                "to 0.1 s each"};
}

Check check_holder_tier(FutexProbe& futex) {
  const auto probe = HolderProbe::open(futex, kDefaultStackRate);
  if (!probe) return {State::Degraded, "holder tier", probe.error().message};
  if (probe->samples()) return {State::Ok, "holder tier", "what holders of contended locks do"};
  return {State::Degraded, "holder tier",
          "perf events are refused, so what holders run is not seen, only for how long: see "
          "kernel.perf_event_paranoid"};
}

// What `lockscope threads` needs.
Check check_census() {
  auto probe = CensusProbe::open();
  if (!probe) return {State::Degraded, "threads", probe.error().message};
  const auto own = probe->threads(::getpid());
  if (!own || own->empty()) return {State::Degraded, "threads", "the kernel shows no threads"};
  return {State::Ok, "threads", "where each thread of a process is, without stopping it"};
}

}  // namespace

std::vector<Check> examine_system() {
  std::vector<Check> checks;
  utsname name {};
  ::uname(&name);
  checks.push_back({State::Ok, "kernel", std::string(name.release) + " " + name.machine});

  if (::geteuid() == 0) {
    checks.push_back({State::Ok, "privileges", "root"});
  } else {
    checks.push_back({State::Missing, "privileges",
                      "not root: recording needs root; saved captures can be read"});
  }
  if (::access("/sys/kernel/btf/vmlinux", R_OK) == 0) {
    checks.push_back({State::Ok, "BTF", "/sys/kernel/btf/vmlinux"});
  } else {
    checks.push_back({State::Missing, "BTF",
                      "no /sys/kernel/btf/vmlinux: use a kernel with CONFIG_DEBUG_INFO_BTF, and "
                      "mount sysfs"});
  }
  if (auto tracefs = Tracefs::open()) {
    checks.push_back(check_tracepoints(*tracefs));
  } else {
    checks.push_back({State::Missing, "system call tracepoints", tracefs.error().message});
  }

  auto probe = FutexProbe::open({});
  if (!probe) {
    checks.push_back({State::Missing, "futex tier", probe.error().message});
  } else if (probe->variant() == "modern") {
    checks.push_back({State::Ok, "futex tier", "all features"});
  } else {
    checks.push_back({State::Degraded, "futex tier",
                      "by the programs for kernels before 5.15: when two CPUs release one lock at "
                      "the same instant, the waiting may be charged to the next release (sums stay "
                      "exact), and maxima may miss one"});
  }
  if (probe) checks.push_back(check_stacks());
  if (probe) checks.push_back(check_pthread_tier(*probe));
  if (probe) checks.push_back(check_holder_tier(*probe));
  checks.push_back(check_census());
  if (Status sandbox = SandboxedParser().check(); sandbox.ok()) {
    checks.push_back({State::Ok, "sandbox", "for reading traced programs' files"});
  } else {
    checks.push_back({State::Degraded, "sandbox",
                      sandbox.error().message + "; stacks of code without frame pointers will be "
                      "broken, and functions have no names: needs CONFIG_SECCOMP_FILTER and /proc"});
  }
  if (auto cgroup = open_cgroup("/")) {
    checks.push_back({State::Ok, "--cgroup", "cgroup v2 is mounted"});
  } else {
    checks.push_back({State::Degraded, "--cgroup", "no cgroup v2 is mounted at /sys/fs/cgroup"});
  }
  return checks;
}

}  // namespace lockscope
