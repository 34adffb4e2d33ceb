// Probe sites in the functions of an ELF file that says that it is a libc.
#include "uprobe/probe_sites.h"

#include <cstdlib>
#include <string>

#include "parse/messages.h"

using namespace lockscope;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = ElfFile::from_memory({reinterpret_cast<const char*>(data), size});
  if (!file) return 0;
  const auto plan = plan_probes(*file);
  if (!plan) return 0;
  for (const ProbeSite& site : plan->sites) {
    if (!file->bytes_at(site.file_offset, 1, 1)) std::abort();
  }
  // The agent takes what the helper makes of any file.
  if (!decode_reply<ProbePlan>(encode(*plan))) std::abort();
  return 0;
}
