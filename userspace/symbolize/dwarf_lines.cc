#include "symbolize/dwarf_lines.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <optional>

#include "symbolize/demangle.h"

namespace lockscope {
namespace {

// Of sections that are compressed: libdw keeps them in memory.
constexpr uint64_t kMaxUnpackedBytes = 512 << 20;
constexpr size_t kMaxUnitRanges = 4 << 20;
constexpr size_t kMaxInlined = 64;

uint64_t unpacked_bytes(const ElfFile& file) {
  uint64_t total = 0;
  for (const ElfFile::Section& section : file.sections()) {
    if (!section.name.starts_with(".debug_") || !(section.header.sh_flags & SHF_COMPRESSED))
      continue;
    Elf64_Chdr header;
    if (file.read_at(section.header.sh_offset, &header, sizeof header) != sizeof header) continue;
    total += std::min<uint64_t>(header.ch_size, kMaxUnpackedBytes + 1);
  }
  return total;
}

// As operator new does it, but libdw cannot go on.
__attribute__((noreturn)) void out_of_memory() {
  if (const std::new_handler handler = std::get_new_handler()) handler();
  std::abort();
}

/// A file in memory, as libdw wants it. Not by descriptor: libdw would look for
/// the file's path, and for others by it.
class MappedDwarf {
 public:
  explicit MappedDwarf(const ElfFile& file) : size_(file.size_bytes()) {
    void* image = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd(), 0);
    if (image == MAP_FAILED) return;
    image_ = static_cast<char*>(image);
    if (!make_headers_writable(file)) return;
    elf_ = elf_memory(image_, size_);
    if (elf_) dwarf_ = dwarf_begin_elf(elf_, DWARF_C_READ, nullptr);
    if (dwarf_) dwarf_new_oom_handler(dwarf_, out_of_memory);
  }
  ~MappedDwarf() {
    if (dwarf_) dwarf_end(dwarf_);
    if (elf_) elf_end(elf_);
    if (image_) ::munmap(image_, size_);
  }
  MappedDwarf(const MappedDwarf&) = delete;
  MappedDwarf& operator=(const MappedDwarf&) = delete;

  Dwarf* get() const { return dwarf_; }

 private:
  // libelf changes the header of a section that it has unpacked. Only these
  // pages: what is writable counts as memory of our own.
  bool make_headers_writable(const ElfFile& file) {
    const uint64_t begin = file.header().e_shoff & ~uint64_t{4095};
    const uint64_t end = file.header().e_shoff + file.sections().size() * sizeof(Elf64_Shdr);
    return ::mmap(image_ + begin, end - begin, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
                  file.fd(), static_cast<off_t>(begin)) != MAP_FAILED;
  }

  size_t size_;
  char* image_ = nullptr;
  Elf* elf_ = nullptr;
  Dwarf* dwarf_ = nullptr;
};

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
  DwarfLines(const ElfFile& file, const ElfFile* supplement) : file_(file) {
    if (!file_.get()) return;
    if (supplement) {
      supplement_.emplace(*supplement);
      if (!supplement_->get()) return;
      dwarf_setalt(file_.get(), supplement_->get());
    }
    index_units();
  }

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
    while (dwarf_nextcu(file_.get(), offset, &next, &header_size, nullptr, nullptr, nullptr) == 0) {
      Dwarf_Die die;
      if (dwarf_offdie(file_.get(), offset + header_size, &die)) {
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
    return dwarf_offdie(file_.get(), std::prev(after)->unit, unit) != nullptr;
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

  std::optional<MappedDwarf> supplement_;  // outlives what refers to it
  MappedDwarf file_;
  std::vector<UnitRange> units_;  // by start
};

}  // namespace

std::unique_ptr<LineTable> open_dwarf_lines(const ElfFile& file, const ElfFile* supplement) {
  if (!file.find_section(".debug_info") || file.fd() < 0 ||
      unpacked_bytes(file) > kMaxUnpackedBytes) {
    return nullptr;
  }
  // libdw would go and look for it.
  if (!supplement && file.find_section(".gnu_debugaltlink")) return nullptr;
  elf_version(EV_CURRENT);
  auto lines = std::make_unique<DwarfLines>(file, supplement);
  if (!lines->ok()) return nullptr;
  return lines;
}

}  // namespace lockscope
