// Go's table of functions, in an ELF file whose code looks like Go's everywhere.
#include "symbolize/go_pclntab.h"

#include <cstring>
#include <string>

#include "symbolize/elf_file.h"

using namespace lockscope;

namespace {

constexpr uint64_t kTextAddress = 0x401000;
constexpr uint64_t kTextBytes = 0x4000;
constexpr char kNames[] = "\0.text\0.gopclntab\0.shstrtab";
// How a function begins: cmp 0x10(%r14),%rsp.
constexpr char kPrologue[] = "\x49\x3b\x66\x10";

std::string elf_with(const uint8_t* table, size_t size) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_machine = EM_X86_64;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 1;
  header.e_shoff = header.e_phoff + sizeof(Elf64_Phdr);
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = 4;
  header.e_shstrndx = 3;
  const uint64_t text = header.e_shoff + 4 * sizeof(Elf64_Shdr);
  const Elf64_Phdr load{PT_LOAD,      PF_R | PF_X, text,       kTextAddress,
                        kTextAddress, kTextBytes,  kTextBytes, 4};
  Elf64_Shdr sections[4] = {};
  sections[1] = {.sh_name = 1,
                 .sh_type = SHT_PROGBITS,
                 .sh_addr = kTextAddress,
                 .sh_offset = text,
                 .sh_size = kTextBytes};
  sections[2] = {.sh_name = 7,
                 .sh_type = SHT_PROGBITS,
                 .sh_addr = 0x500000,
                 .sh_offset = text + kTextBytes,
                 .sh_size = size};
  sections[3] = {.sh_name = 18,
                 .sh_type = SHT_STRTAB,
                 .sh_offset = text + kTextBytes + size,
                 .sh_size = sizeof kNames};
  std::string image(reinterpret_cast<const char*>(&header), sizeof header);
  image.append(reinterpret_cast<const char*>(&load), sizeof load);
  image.append(reinterpret_cast<const char*>(sections), sizeof sections);
  for (uint64_t at = 0; at < kTextBytes; at += 4) image.append(kPrologue, 4);
  image.append(reinterpret_cast<const char*>(table), size);
  image.append(kNames, sizeof kNames);
  return image;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = ElfFile::from_memory(elf_with(data, size));
  if (!file) return 0;
  const auto table = GoPclntab::load(*file);
  if (!table) return 0;
  SymbolTableBuilder builder;
  table->add_to(&builder);
  const SymbolTable symbols = builder.build();
  for (uint64_t at = 0; at < kTextBytes; at += 16) symbols.find(kTextAddress + at);
  return 0;
}
