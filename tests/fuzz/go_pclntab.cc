// Go's table of functions, in an ELF file whose code looks like Go's everywhere: names, lines,
// inlined functions, unwind tables. The last byte tells how the file leads to the table.
#include "symbolize/go_pclntab.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "parse/messages.h"
#include "symbolize/go_lines.h"
#include "unwind/byte_source.h"
#include "unwind/cfa_table.h"

using namespace lockscope;

namespace {

enum : uint8_t { kRelocated = 1, kWithoutSections = 2 };

constexpr uint64_t kTextAddress = 0x401000;
constexpr uint64_t kTextBytes = 0x4000;
constexpr uint64_t kTableAddress = 0x500000;
constexpr uint64_t kDataAddress = 0x600000;
constexpr uint64_t kModuleDataWords = 64;
constexpr char kNames[] = "\0.text\0.gopclntab\0.shstrtab";
// How a function begins: cmp 0x10(%r14),%rsp.
constexpr char kPrologue[] = "\x49\x3b\x66\x10";

template <class T>
void append(std::string& image, const T& value) {
  image.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// runtime.moduledata, and for a file that is relocated what puts it there. Inline trees are in the
// table's own bytes.
std::string data_with(std::string_view table, bool relocated) {
  uint64_t names_at = 0;
  if (table.size() >= 40) std::memcpy(&names_at, table.data() + 32, sizeof names_at);
  const std::pair<uint64_t, uint64_t> known[] = {
      {0, kTableAddress}, {1, kTableAddress + names_at}, {22, kTextAddress}, {38, kTableAddress}};
  std::vector<uint64_t> words(kModuleDataWords);
  std::string relocations;
  for (const auto& [index, value] : known) {
    if (!relocated) words[index] = value;
    append(relocations, Elf64_Rela{kDataAddress + index * 8, ELF64_R_INFO(0, R_X86_64_RELATIVE),
                                   static_cast<Elf64_Sxword>(value)});
  }
  std::string data(reinterpret_cast<const char*>(words.data()), words.size() * 8);
  const uint64_t relocations_at = kDataAddress + data.size() + 4 * sizeof(Elf64_Dyn);
  append(data, Elf64_Dyn{DT_RELA, {relocations_at}});
  append(data, Elf64_Dyn{DT_RELASZ, {relocations.size()}});
  append(data, Elf64_Dyn{DT_RELAENT, {sizeof(Elf64_Rela)}});
  append(data, Elf64_Dyn{DT_NULL, {0}});
  return data + relocations;
}

std::string elf_with(std::string_view table, uint8_t how) {
  const std::string data = data_with(table, how & kRelocated);
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_DYN;
  header.e_machine = EM_X86_64;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 4;
  const uint64_t sections_at = header.e_phoff + 4 * sizeof(Elf64_Phdr);
  if (!(how & kWithoutSections)) {
    header.e_shoff = sections_at;
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = 4;
    header.e_shstrndx = 3;
  }
  const uint64_t text = sections_at + 4 * sizeof(Elf64_Shdr);
  const uint64_t table_at = text + kTextBytes;
  const uint64_t data_at = (table_at + table.size() + 7) & ~uint64_t{7};
  const uint64_t dynamic = kModuleDataWords * 8;
  const auto segment = [](uint32_t type, uint32_t flags, uint64_t offset, uint64_t address,
                          uint64_t size) {
    return Elf64_Phdr{type, flags, offset, address, address, size, size, 8};
  };
  const Elf64_Phdr segments[4] = {segment(PT_LOAD, PF_R | PF_X, text, kTextAddress, kTextBytes),
                                  segment(PT_LOAD, PF_R, table_at, kTableAddress, table.size()),
                                  segment(PT_LOAD, PF_R | PF_W, data_at, kDataAddress, data.size()),
                                  segment(PT_DYNAMIC, PF_R | PF_W, data_at + dynamic,
                                          kDataAddress + dynamic, data.size() - dynamic)};
  Elf64_Shdr sections[4] = {};
  sections[1] = {.sh_name = 1,
                 .sh_type = SHT_PROGBITS,
                 .sh_addr = kTextAddress,
                 .sh_offset = text,
                 .sh_size = kTextBytes};
  sections[2] = {.sh_name = 7,
                 .sh_type = SHT_PROGBITS,
                 .sh_addr = kTableAddress,
                 .sh_offset = table_at,
                 .sh_size = table.size()};
  sections[3] = {.sh_name = 18,
                 .sh_type = SHT_STRTAB,
                 .sh_offset = data_at + data.size(),
                 .sh_size = sizeof kNames};
  std::string image;
  append(image, header);
  append(image, segments);
  append(image, sections);
  for (uint64_t at = 0; at < kTextBytes; at += 4) image.append(kPrologue, 4);
  image.append(table);
  image.resize(data_at);
  image += data;
  image.append(kNames, sizeof kNames);
  return image;
}

void look_up(LineTable& lines) {
  std::vector<Names> names;
  for (uint64_t at = 0; at < kTextBytes; at += kTextBytes / 32) {
    names.push_back({.frames = lines.find(kTextAddress + at)});
  }
  // The agent would take anything else for a helper that has been taken over.
  if (!decode_reply<std::vector<Names>>(encode(names))) std::abort();
}

void go_through(const GoPclntab& table) {
  for (uint64_t i = 0; i < std::min<uint64_t>(table.size(), 64); ++i) {
    const auto function = table.function(i);
    if (!function) continue;
    uint64_t reached = function->start;
    table.each_value(*function, function->stack, [&](uint64_t start, uint64_t end, int32_t) {
      if (start != reached || end <= start || end > function->end) std::abort();
      reached = end;
      return true;
    });
  }
}

void build_rules(const std::string& image) {
  const auto table = build_cfa_table(
      ByteSource::of_memory({reinterpret_cast<const uint8_t*>(image.data()), image.size()}));
  if (table && !decode_reply<CfaTable>(encode(*table))) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view table(reinterpret_cast<const char*>(data), size - 1);
  const std::string image = elf_with(table, data[size - 1]);
  build_rules(image);
  auto file = ElfFile::from_memory(image);
  if (!file) std::abort();
  if (const auto lines = open_go_lines(*file)) look_up(*lines);
  auto loaded = GoPclntab::load(std::move(*file));
  if (!loaded) return 0;
  go_through(*loaded);
  loaded->hold();
  go_through(*loaded);
  return 0;
}
