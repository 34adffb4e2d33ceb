#include "process/vdso.h"

#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "process/maps.h"

namespace lockscope {

Result<UniqueFd> open_vdso() {
  const uint64_t address = ::getauxval(AT_SYSINFO_EHDR);
  auto maps = read_maps(::getpid());
  if (!maps) return maps.error();
  const Mapping* mapping = address == 0 ? nullptr : find_mapping(*maps, address);
  if (!mapping) return failed("no vdso");
  UniqueFd file(::memfd_create("vdso", MFD_CLOEXEC));
  const size_t size = mapping->end - mapping->start;
  if (!file || ::write(file.get(), reinterpret_cast<const void*>(address), size) !=
                   static_cast<ssize_t>(size)) {
    return failed(std::string("cannot copy the vdso: ") + std::strerror(errno));
  }
  return file;
}

}  // namespace lockscope
