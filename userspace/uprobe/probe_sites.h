#pragma once

#include "base/result.h"
#include "symbolize/elf_file.h"
#include "uprobe/probe_plan.h"

namespace lockscope {

/// Where to place uprobes in a libc, a libpthread, or a program that has its own
/// inside and still names it. Fails if it has no pthread functions. The file's
/// word is not taken for anything but where its own code is.
Result<ProbePlan> plan_probes(const ElfFile& file);

}  // namespace lockscope
