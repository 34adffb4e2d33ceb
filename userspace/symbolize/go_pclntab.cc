#include "symbolize/go_pclntab.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

namespace lockscope {
namespace {

constexpr uint64_t kFunctabEntryBytes = 8;  // code offset, offset of its _func
constexpr size_t kMaxTextBytes = 16 << 10;  // of one name

// runtime._func (src/runtime/runtime2.go). Go 1.20 put startLine after cuOffset;
// what follows are four bytes, the last two flags being funcID, flag, pad and
// nfuncdata, then npcdata and nfuncdata offsets.
constexpr uint64_t kFuncBytes118 = 40;
constexpr uint64_t kFuncBytes120 = 44;
constexpr uint32_t kInlineTreeIndex = 2;  // PCDATA_InlTreeIndex
constexpr uint32_t kInlineTree = 3;       // FUNCDATA_InlTree
constexpr uint32_t kMaxTables = 64;       // npcdata; 4 so far

// runtime.inlinedCall: {parent i16, funcID u8, _, file, line, func, parentPc i32}
// before Go 1.20, then {funcID u8, _[3], nameOff, parentPc, startLine i32}.
constexpr uint64_t kCallBytes118 = 20;
constexpr uint64_t kCallBytes120 = 16;
constexpr uint64_t kNameInCall118 = 12;
constexpr uint64_t kNameInCall120 = 4;
constexpr int32_t kMaxInlinedCalls = 1 << 20;

// runtime.moduledata (src/runtime/symtab.go), in words: the header's address,
// six slices, findfunctab, minpc, maxpc, text. `gofunc`, which inline trees count
// from, comes 16 (1.18), 18 (1.20) or 21 (1.27) words later.
constexpr size_t kTextInModuleData = 1 + 6 * 3 + 3;
constexpr size_t kFirstGofunc = kTextInModuleData + 16;
constexpr size_t kLastGofunc = kTextInModuleData + 24;

// How nearly every function begins that may grow its stack, on x86-64:
// cmp 0x10(%r14),%rsp; with a large frame, lea -N(%rsp),%r12; cmp 0x10(%r14),%r12.
constexpr std::string_view kPrologue = "\x49\x3b\x66\x10";
constexpr std::string_view kLargePrologue = "\x4c\x8d";
constexpr uint64_t kFunctionsChecked = 200;
constexpr uint64_t kTreesChecked = 50;

}  // namespace

size_t GoPclntab::read(uint64_t at, void* buffer, size_t size) const {
  if (at >= place_.size) return 0;
  size = std::min<uint64_t>(size, place_.size - at);
  if (held_.empty()) return file_.read_at(place_.offset + at, buffer, size);
  if (at >= held_.size()) return 0;
  size = std::min<uint64_t>(size, held_.size() - at);
  std::memcpy(buffer, held_.data() + at, size);
  return size;
}

/// 0 past the end.
template <class T>
T GoPclntab::number_at(uint64_t at) const {
  T value = 0;
  return read(at, &value, sizeof value) == sizeof value ? value : 0;
}

std::string GoPclntab::text_at(uint64_t at) const {
  std::string text;
  char part[256];
  while (text.size() < kMaxTextBytes) {
    const size_t got = read(at + text.size(), part, sizeof part);
    const size_t size = strnlen(part, got);
    text.append(part, size);
    if (size < sizeof part) break;
  }
  return text;
}

std::optional<GoPclntab> GoPclntab::load(ElfFile file) {
  GoPclntab table(std::move(file), {});
  for (const GoTablePlace& place : find_go_tables(table.file_)) {
    table.place_ = place;
    if (table.read_header() && table.find_code()) return table;
  }
  return std::nullopt;
}

void GoPclntab::hold() {
  if (!held_.empty()) return;
  std::string all(place_.size, '\0');
  all.resize(file_.read_at(place_.offset, all.data(), all.size()));
  held_ = std::move(all);
}

// Eight words: functions, files, text start, and where the parts of the table
// begin: names, units, files, values, functions.
bool GoPclntab::read_header() {
  const auto magic = number_at<uint32_t>(0);
  if ((magic != kGoMagic118 && magic != kGoMagic120) || number_at<uint8_t>(7) != 8) return false;
  is_118_ = magic == kGoMagic118;
  functions_ = number_at<uint64_t>(8);
  names_at_ = number_at<uint64_t>(32);
  units_at_ = number_at<uint64_t>(40);
  files_at_ = number_at<uint64_t>(48);
  values_at_ = number_at<uint64_t>(56);
  functab_at_ = number_at<uint64_t>(64);
  const uint64_t last = std::max({names_at_, units_at_, files_at_, values_at_, functab_at_});
  return last < place_.size && functions_ != 0 &&
         functions_ < (place_.size - functab_at_) / kFunctabEntryBytes;
}

// The header says where the code begins, but not since Go 1.26 and not in files
// that are still to be relocated. A wrong guess would name every function
// wrongly, so whatever we take must look like Go's code.
bool GoPclntab::find_code() {
  const auto module_data = find_go_module_data(file_, place_.address, place_.address + names_at_);
  const ElfFile::Section* text = file_.find_section(".text");
  const uint64_t module_text =
      module_data.size() > kTextInModuleData ? module_data[kTextInModuleData] : 0;
  for (const uint64_t start :
       {number_at<uint64_t>(24), module_text, text ? uint64_t{text->header.sh_addr} : 0}) {
    if (start == 0 || !describes_code_at(start)) continue;
    text_ = start;
    find_inline_trees(module_data);
    return true;
  }
  return false;
}

bool GoPclntab::describes_code_at(uint64_t text) const {
  const uint64_t step = std::max<uint64_t>(1, functions_ / kFunctionsChecked);
  uint64_t checked = 0;
  uint64_t matching = 0;
  for (uint64_t i = 0; i < functions_; i += step) {
    char code[4];
    const auto offset =
        file_.offset_of_address(text + number_at<uint32_t>(functab_at_ + i * kFunctabEntryBytes));
    if (!offset || file_.read_at(*offset, code, sizeof code) != sizeof code) return false;
    const std::string_view start(code, sizeof code);
    matching += start == kPrologue || start.starts_with(kLargePrologue);
    ++checked;
  }
  // On real programs half to nine tenths; at a wrong place hardly any.
  return file_.header().e_machine != EM_X86_64 || matching * 4 >= checked;
}

void GoPclntab::find_inline_trees(const std::vector<uint64_t>& module_data) {
  const size_t end = std::min(module_data.size(), kLastGofunc + 1);
  for (size_t i = kFirstGofunc; i < end; ++i) {
    if (module_data[i] == 0 || !has_inline_trees_at(module_data[i])) continue;
    inline_trees_ = module_data[i];
    return;
  }
}

// Whether what functions call their first inlined call is one.
bool GoPclntab::has_inline_trees_at(uint64_t base) const {
  uint64_t found = 0;
  const uint64_t step = std::max<uint64_t>(1, functions_ / kFunctionsChecked);
  for (uint64_t i = 0; i < functions_ && found < kTreesChecked; i += step) {
    auto function = this->function(i);
    if (!function || function->inline_tree == 0) continue;
    function->inline_tree += base - inline_trees_;
    const auto call = inlined_call(*function, 0);
    if (!call || name(call->name).empty() || number_at<uint8_t>(names_at_ + call->name - 1) != 0) {
      return false;
    }
    ++found;
  }
  return found > 0;
}

std::optional<GoFunction> GoPclntab::function(uint64_t index) const {
  if (index >= functions_) return std::nullopt;
  // Code offset, record, and the next one's code offset.
  uint32_t entry[3];
  if (read(functab_at_ + index * kFunctabEntryBytes, entry, sizeof entry) != sizeof entry ||
      entry[2] <= entry[0]) {
    return std::nullopt;
  }
  const uint64_t at = functab_at_ + entry[1];
  uint32_t words[kFuncBytes120 / 4];
  const uint64_t bytes = is_118_ ? kFuncBytes118 : kFuncBytes120;
  if (read(at, words, bytes) != bytes) return std::nullopt;
  GoFunction function;
  function.start = text_ + entry[0];
  function.end = text_ + entry[2];
  function.name = words[1];
  function.stack = words[4];
  function.files = words[5];
  function.lines = words[6];
  function.unit = words[8];
  const uint32_t bits = words[bytes / 4 - 1];  // funcID, flag, pad, nfuncdata
  function.flags = static_cast<uint8_t>(bits >> 8);
  const uint32_t n_values = words[7];
  const uint32_t n_data = bits >> 24;
  if (n_values > kMaxTables) return function;
  const uint64_t data_at = at + bytes + uint64_t{n_values} * 4;
  if (n_values > kInlineTreeIndex && n_data > kInlineTree) {
    const auto tree = number_at<uint32_t>(data_at + kInlineTree * 4);
    function.inlined = number_at<uint32_t>(at + bytes + kInlineTreeIndex * 4);
    if (tree != ~uint32_t{0}) function.inline_tree = inline_trees_ + tree;
  }
  return function;
}

std::optional<GoFunction> GoPclntab::find(uint64_t address) const {
  if (address < text_) return std::nullopt;
  const uint64_t offset = address - text_;
  uint64_t low = 0;  // begins at or before the address, if any does
  uint64_t high = functions_;
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    if (number_at<uint32_t>(functab_at_ + middle * kFunctabEntryBytes) <= offset) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const auto found = function(low);
  if (!found || address < found->start || address >= found->end) return std::nullopt;
  return found;
}

std::string GoPclntab::name(uint32_t offset) const { return text_at(names_at_ + offset); }

std::string GoPclntab::source_file(const GoFunction& function, int32_t number) const {
  if (number < 0) return {};
  const auto offset = number_at<uint32_t>(
      units_at_ + (uint64_t{function.unit} + static_cast<uint32_t>(number)) * 4);
  return offset == ~uint32_t{0} ? "" : text_at(files_at_ + offset);
}

std::optional<GoInlinedCall> GoPclntab::inlined_call(const GoFunction& function,
                                                     int32_t index) const {
  if (function.inline_tree == 0 || index < 0 || index >= kMaxInlinedCalls) return std::nullopt;
  const uint64_t bytes = is_118_ ? kCallBytes118 : kCallBytes120;
  const auto offset =
      file_.offset_of_address(function.inline_tree + static_cast<uint32_t>(index) * bytes);
  uint32_t name_and_pc[2];  // next to each other in both layouts
  if (!offset ||
      file_.read_at(*offset + (is_118_ ? kNameInCall118 : kNameInCall120), name_and_pc,
                    sizeof name_and_pc) != sizeof name_and_pc ||
      name_and_pc[1] >= function.end - function.start) {
    return std::nullopt;
  }
  return GoInlinedCall{name_and_pc[0], function.start + name_and_pc[1]};
}

// Pairs of variable-length numbers: by how much the value changes, zigzag, and
// for how many bytes of code it holds. (src/runtime/symtab.go, step.)
void GoPclntab::each_value(const GoFunction& function, uint32_t values,
                           const std::function<bool(uint64_t, uint64_t, int32_t)>& use) const {
  if (values == 0) return;
  uint64_t at = values_at_ + values;
  uint8_t part[128];
  size_t used = 0;
  size_t have = 0;
  const auto next = [&]() -> std::optional<uint32_t> {
    uint32_t value = 0;
    for (unsigned shift = 0; shift < 32; shift += 7) {
      if (used == have) {
        have = read(at, part, sizeof part);
        used = 0;
        at += have;
        if (have == 0) return std::nullopt;
      }
      const uint8_t byte = part[used++];
      value |= uint32_t{byte & 0x7fu} << shift;
      if (!(byte & 0x80)) return value;
    }
    return std::nullopt;
  };

  uint32_t value = ~uint32_t{0};
  for (uint64_t start = function.start; start < function.end;) {
    const auto change = next();
    if (!change || (*change == 0 && start != function.start)) return;
    value += (*change >> 1) ^ (0 - (*change & 1));
    // Each step takes at least a byte of code, so they are no more than those.
    const auto length = next();
    if (!length || *length == 0) return;
    const uint64_t end = std::min(start + *length, function.end);
    if (!use(start, end, static_cast<int32_t>(value))) return;
    start = end;
  }
}

std::optional<int32_t> GoPclntab::value_at(const GoFunction& function, uint32_t values,
                                           uint64_t address) const {
  std::optional<int32_t> found;
  each_value(function, values, [&](uint64_t, uint64_t end, int32_t value) {
    if (address < end) found = value;
    return !found;
  });
  return found;
}

}  // namespace lockscope
