// Symbols of functions and variables, function boundaries, links, embedded debug information of an
// ELF file.
#include "symbolize/elf_symbols.h"

#include <cstdlib>
#include <string>

#include "parse/messages.h"
#include "symbolize/demangle.h"
#include "symbolize/elf_links.h"
#include "symbolize/language.h"
#include "symbolize/mini_debug_info.h"

using namespace lockscope;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = ElfFile::from_memory({reinterpret_cast<const char*>(data), size});
  if (!file) return 0;
  if (!decode_reply<ElfLinks>(encode(read_links(*file)))) std::abort();
  file_checksum(*file);
  compiler_of(*file);
  const auto mini = read_mini_debug_info(*file);
  const ElfSymbols symbols = ElfSymbols::load(*file, mini ? &*mini : nullptr);
  const uint64_t base = file->base_address();
  for (uint64_t address = base; address < base + 0x4000; address += 61) {
    if (const auto symbol = symbols.find(address)) {
      if (address - symbol->start >= symbol->size) std::abort();
      demangle(symbol->name);
    }
    if (const auto object = symbols.find_object(address)) {
      if (address - object->start >= object->size) std::abort();
    }
    if (const auto range = symbols.find_range(address)) {
      if (address - range->start >= range->size) std::abort();
    }
  }
  return 0;
}
