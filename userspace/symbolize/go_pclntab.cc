#include "symbolize/go_pclntab.h"

#include <algorithm>
#include <cstring>

namespace lockscope {
namespace {

constexpr uint64_t kMaxTableBytes = 128 << 20;  // kubelet: 30 MB
constexpr uint64_t kMaxDataBytes = 32 << 20;

// src/debug/gosym/pclntab.go
constexpr uint32_t kMagic118 = 0xfffffff0;
constexpr uint32_t kMagic120 = 0xfffffff1;
// The header: magic, two zero bytes, instruction size, pointer size, then eight
// words: functions, files, text start, and where the parts of the table begin.
constexpr uint64_t kHeaderBytes = 8 + 8 * 8;
constexpr uint64_t kFunctabEntryBytes = 8;  // code offset, offset of its _func
constexpr uint64_t kNameInFunc = 4;         // _func.nameoff

// runtime.moduledata (src/runtime/symtab.go): the header's address, six slices,
// then findfunctab, minpc, maxpc, text. The same from 1.18 to 1.25.
constexpr uint64_t kTextInModuleData = 8 + 6 * 24 + 3 * 8;

// How nearly every function begins that may grow its stack, on x86-64:
// cmp 0x10(%r14),%rsp; with a large frame, lea -N(%rsp),%r12; cmp 0x10(%r14),%r12.
constexpr std::string_view kPrologue = "\x49\x3b\x66\x10";
constexpr std::string_view kLargePrologue = "\x4c\x8d";
constexpr uint64_t kFunctionsChecked = 200;

}  // namespace

uint32_t GoPclntab::u32(uint64_t at) const {
  uint32_t value = 0;
  if (at <= bytes_.size() && sizeof value <= bytes_.size() - at) {
    std::memcpy(&value, bytes_.data() + at, sizeof value);
  }
  return value;
}

uint64_t GoPclntab::u64(uint64_t at) const { return u32(at) | uint64_t{u32(at + 4)} << 32; }

std::optional<GoPclntab> GoPclntab::load(const ElfFile& file) {
  const ElfFile::Section* section = file.find_section(".gopclntab");
  if (!section) section = file.find_section(".data.rel.ro.gopclntab");  // PIE
  auto bytes = file.bytes_of(section, kMaxTableBytes);
  if (!bytes || bytes->size() < kHeaderBytes) return std::nullopt;

  GoPclntab table;
  table.bytes_ = std::move(*bytes);
  const uint32_t magic = table.u32(0);
  if ((magic != kMagic118 && magic != kMagic120) || table.bytes_[7] != 8) return std::nullopt;
  table.functions_ = table.u64(8);
  table.names_at_ = table.u64(32);
  table.functab_at_ = table.u64(64);
  const uint64_t size = table.bytes_.size();
  if (table.names_at_ >= size || table.functab_at_ >= size || table.functions_ == 0 ||
      table.functions_ >= (size - table.functab_at_) / kFunctabEntryBytes) {
    return std::nullopt;
  }

  // The header says where the code begins, but not since Go 1.26 and not in
  // files that are still to be relocated. A wrong guess would name every
  // function wrongly, so whatever we take must look like Go's code.
  const ElfFile::Section* text = file.find_section(".text");
  const auto module_text = table.text_from_module_data(file, section->header.sh_addr);
  for (const uint64_t start :
       {table.u64(24), module_text.value_or(0), text ? uint64_t{text->header.sh_addr} : 0}) {
    if (start != 0 && table.describes_code_at(file, start)) {
      table.text_ = start;
      return table;
    }
  }
  return std::nullopt;
}

bool GoPclntab::describes_code_at(const ElfFile& file, uint64_t text) const {
  const uint64_t step = std::max<uint64_t>(1, functions_ / kFunctionsChecked);
  uint64_t checked = 0;
  uint64_t matching = 0;
  for (uint64_t i = 0; i < functions_; i += step) {
    char code[4];
    const auto offset = file.offset_of_address(text + u32(functab_at_ + i * kFunctabEntryBytes));
    if (!offset || file.read_at(*offset, code, sizeof code) != sizeof code) return false;
    const std::string_view start(code, sizeof code);
    matching += start == kPrologue || start.starts_with(kLargePrologue);
    ++checked;
  }
  // On real programs half to nine tenths; at a wrong place hardly any.
  return file.header().e_machine != EM_X86_64 || matching * 4 >= checked;
}

// Finds the module data by its first word, the address of this table.
std::optional<uint64_t> GoPclntab::text_from_module_data(const ElfFile& file,
                                                         uint64_t table) const {
  for (const char* name : {".go.module", ".noptrdata", ".data"}) {
    const auto data = file.bytes_of(file.find_section(name), kMaxDataBytes);
    if (!data) continue;
    for (uint64_t at = 0; at + kTextInModuleData + 8 <= data->size(); at += 8) {
      uint64_t word;
      std::memcpy(&word, data->data() + at, sizeof word);
      if (word != table) continue;
      std::memcpy(&word, data->data() + at + kTextInModuleData, sizeof word);
      if (word != 0) return word;
    }
  }
  return std::nullopt;
}

void GoPclntab::add_to(SymbolTableBuilder* builder) const {
  for (uint64_t i = 0; i < functions_ && !builder->full(); ++i) {
    const uint64_t at = functab_at_ + i * kFunctabEntryBytes;
    const uint32_t start = u32(at);
    const uint32_t end = u32(at + kFunctabEntryBytes);
    if (end <= start) continue;
    const uint64_t name = names_at_ + u32(functab_at_ + u32(at + 4) + kNameInFunc);
    if (name >= bytes_.size()) continue;
    const char* text = bytes_.data() + name;
    const size_t room =
        std::min<uint64_t>(bytes_.size() - name, SymbolTableBuilder::kMaxNameBytes + 1);
    builder->add({text, strnlen(text, room)}, text_ + start, end - start, 0, 0);
  }
}

}  // namespace lockscope
