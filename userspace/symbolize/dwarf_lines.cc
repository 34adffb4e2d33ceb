#include "symbolize/dwarf_lines.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>

#include <algorithm>
#include <cstdlib>

#include "symbolize/demangle.h"

namespace lockscope {
namespace {

// What libdw may have to keep in memory: sections that are compressed, or all
// of them where mapping is not safe.
constexpr uint64_t kMaxTrustedBytes = 1 << 30;
constexpr uint64_t kMaxUntrustedBytes = 64 << 20;
constexpr size_t kMaxUnitRanges = 4 << 20;
constexpr size_t kMaxInlined = 64;

uint64_t debug_bytes(const ElfFile& file) {
  uint64_t total = 0;
  for (const ElfFile::Section& section : file.sections()) {
    if (!section.name.starts_with(".debug_") && !section.name.starts_with(".zdebug_")) continue;
    uint64_t size = std::min<uint64_t>(section.header.sh_size, file.size_bytes());
    if (section.header.sh_flags & SHF_COMPRESSED) {
      Elf64_Chdr header;
      if (file.read_at(section.header.sh_offset, &header, sizeof header) != sizeof header) continue;
      size = header.ch_size;
    }
    total += std::min(size, kMaxTrustedBytes + 1);
  }
  return total;
}

std::string function_name(Dwarf_Die* die) {
  Dwarf_Attribute attribute;
  for (const unsigned what : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name}) {
    if (const char* name = dwarf_formstring(dwarf_attr_integrate(die, what, &attribute))) {
      return demangle(name);
    }
  }
  const char* name = dwarf_formstring(dwarf_attr_integrate(die, DW_AT_name, &attribute));
  return name ? demangle(name) : "";
}

uint32_t number(Dwarf_Die* die, unsigned what) {
  Dwarf_Attribute attribute;
  Dwarf_Word value = 0;
  if (dwarf_formudata(dwarf_attr(die, what, &attribute), &value) != 0) return 0;
  return static_cast<uint32_t>(value);
}

class DwarfLines : public LineTable {
 public:
  DwarfLines(UniqueFd fd, bool trusted) : fd_(std::move(fd)) {
    elf_version(EV_CURRENT);
    elf_ = elf_begin(fd_.get(), trusted ? ELF_C_READ_MMAP : ELF_C_READ, nullptr);
    if (elf_) dwarf_ = dwarf_begin_elf(elf_, DWARF_C_READ, nullptr);
    if (dwarf_) index_units();
  }
  ~DwarfLines() override {
    if (dwarf_) dwarf_end(dwarf_);
    if (elf_) elf_end(elf_);
  }
  DwarfLines(const DwarfLines&) = delete;
  DwarfLines& operator=(const DwarfLines&) = delete;

  bool ok() const { return !units_.empty(); }

  std::vector<Frame> find(uint64_t address) override {
    Dwarf_Die unit;
    if (!unit_at(address, &unit)) return {};
    Frame frame;  // the innermost; its name comes from the scopes
    if (Dwarf_Line* line = dwarf_getsrc_die(&unit, address)) {
      if (const char* file = dwarf_linesrc(line, nullptr, nullptr)) frame.file = sanitize(file);
      int lineno = 0;
      if (dwarf_lineno(line, &lineno) == 0) frame.line = static_cast<uint32_t>(lineno);
    }
    std::vector<Frame> frames;
    Dwarf_Die* scopes = nullptr;
    Dwarf_Die* around = nullptr;
    // dwarf_getscopes() leaves an inlined function for the place where it was
    // written; dwarf_getscopes_die() tells where it was inlined.
    const int found = dwarf_getscopes(&unit, address, &scopes);
    const int depth = found > 0 ? dwarf_getscopes_die(&scopes[0], &around) : 0;
    for (int i = 0; i < depth && frames.size() < kMaxInlined; ++i) {
      const int tag = dwarf_tag(&around[i]);
      if (tag == DW_TAG_subprogram) {
        frame.function = function_name(&around[i]);
        break;
      }
      if (tag != DW_TAG_inlined_subroutine) continue;
      frame.function = function_name(&around[i]);
      frame.inlined = true;
      frames.push_back(std::move(frame));
      frame = call_site(&unit, &around[i]);
    }
    std::free(around);
    std::free(scopes);
    if (!frames.empty() || frame.line != 0 || !frame.function.empty()) {
      frames.push_back(std::move(frame));
    }
    return frames;
  }

 private:
  struct UnitRange {
    uint64_t start;
    uint64_t end;
    Dwarf_Off unit;
  };

  // Not .debug_aranges, which clang does not write.
  void index_units() {
    Dwarf_Off offset = 0;
    Dwarf_Off next = 0;
    size_t header_size = 0;
    while (dwarf_nextcu(dwarf_, offset, &next, &header_size, nullptr, nullptr, nullptr) == 0) {
      Dwarf_Die die;
      if (dwarf_offdie(dwarf_, offset + header_size, &die)) {
        Dwarf_Addr base, start, end;
        ptrdiff_t at = 0;
        while (units_.size() < kMaxUnitRanges &&
               (at = dwarf_ranges(&die, at, &base, &start, &end)) > 0) {
          if (start < end) units_.push_back({start, end, offset + header_size});
        }
      }
      if (next <= offset) break;
      offset = next;
    }
    std::sort(units_.begin(), units_.end(),
              [](const UnitRange& a, const UnitRange& b) { return a.start < b.start; });
  }

  bool unit_at(uint64_t address, Dwarf_Die* unit) {
    auto after = std::upper_bound(units_.begin(), units_.end(), address,
                                  [](uint64_t a, const UnitRange& u) { return a < u.start; });
    if (after == units_.begin() || address >= std::prev(after)->end) return false;
    return dwarf_offdie(dwarf_, std::prev(after)->unit, unit) != nullptr;
  }

  static Frame call_site(Dwarf_Die* unit, Dwarf_Die* inlined) {
    Frame frame{.line = number(inlined, DW_AT_call_line)};
    Dwarf_Files* files = nullptr;
    size_t count = 0;
    const uint32_t index = number(inlined, DW_AT_call_file);
    if (dwarf_getsrcfiles(unit, &files, &count) == 0 && index < count) {
      if (const char* file = dwarf_filesrc(files, index, nullptr, nullptr)) {
        frame.file = sanitize(file);
      }
    }
    return frame;
  }

  UniqueFd fd_;
  Elf* elf_ = nullptr;
  Dwarf* dwarf_ = nullptr;
  std::vector<UnitRange> units_;  // by start
};

}  // namespace

std::unique_ptr<LineTable> open_dwarf_lines(const ElfFile& file, bool trusted) {
  if (!file.find_section(".debug_info") || file.fd() < 0 ||
      debug_bytes(file) > (trusted ? kMaxTrustedBytes : kMaxUntrustedBytes)) {
    return nullptr;
  }
  UniqueFd fd(::fcntl(file.fd(), F_DUPFD_CLOEXEC, 0));
  if (!fd) return nullptr;
  auto lines = std::make_unique<DwarfLines>(std::move(fd), trusted);
  if (!lines->ok()) return nullptr;
  return lines;
}

}  // namespace lockscope
