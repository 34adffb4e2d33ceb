// Lines and inlined functions, through libdw. What it finds is elfutils' to mend;
// here it crashes in a sandbox.
#include "symbolize/dwarf_lines.h"

#include <sys/mman.h>
#include <unistd.h>

using namespace lockscope;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  if (::write(fd.get(), data, size) != static_cast<ssize_t>(size)) return 0;
  const auto file = ElfFile::open(std::move(fd));
  if (!file) return 0;
  const auto lines = open_dwarf_lines(*file, nullptr);
  if (!lines) return 0;
  const uint64_t base = file->base_address();
  for (uint64_t address = base; address < base + 0x2000; address += 29) lines->find(address);
  return 0;
}
