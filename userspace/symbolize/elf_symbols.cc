#include "symbolize/elf_symbols.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <optional>

#include "symbolize/dynamic_section.h"

namespace lockscope {
namespace {

constexpr uint64_t kMaxStringsBytes = 256 << 20;  // chrome, unstripped: 110 MB
constexpr uint64_t kMaxSymbolsRead = 16 << 20;    // data and undefined ones included
constexpr size_t kSymbolsPerRead = 8192;
constexpr size_t kMaxRanges = 32;

/// Feeds the symbols of one file to builders: functions, and variables.
class SymbolReader {
 public:
  // The code is told by the program headers of the file that runs: those of a
  // debug file are not kept up by every tool.
  explicit SymbolReader(const ElfFile& code) {
    for (const Elf64_Phdr& segment : code.segments()) {
      const CodeRange range{segment.p_vaddr, segment.p_memsz};
      // Constants that need relocation are no longer written to after that: no
      // place for a lock, but for most of C++'s data symbols.
      if (segment.p_type == PT_GNU_RELRO) constants_ = range;
      if (segment.p_type != PT_LOAD) continue;
      auto* ranges = segment.p_flags & PF_X ? &code_ : segment.p_flags & PF_W ? &data_ : nullptr;
      if (ranges && ranges->size() < kMaxRanges) ranges->push_back(range);
    }
  }

  /// False when the file has no such table.
  /// `bounds`, if given, are all that tells how far a symbol without a size may
  /// reach when the functions after it may have lost their names.
  bool read(const ElfFile& file, uint32_t section_type, const EhFrameRanges* bounds = nullptr) {
    const ElfFile::Section* table = file.find_section(section_type);
    if (!table || table->header.sh_entsize != sizeof(Elf64_Sym) ||
        table->header.sh_link >= file.sections().size()) {
      return false;
    }
    auto strings = file.bytes_of(&file.sections()[table->header.sh_link], kMaxStringsBytes);
    return strings &&
           read_table(file, table->header.sh_offset, table->header.sh_size / sizeof(Elf64_Sym),
                      std::move(*strings), bounds);
  }

  /// The symbols of the run-time linker, where the section table is gone.
  void read_dynamic(const ElfFile& file, const EhFrameRanges* bounds) {
    const auto symbols = DynamicSection::load(file).symbols(file);
    if (!symbols) return;
    auto strings = file.bytes_at(symbols->strings_offset, symbols->strings_bytes, kMaxStringsBytes);
    if (strings) read_table(file, symbols->offset, symbols->count, std::move(*strings), bounds);
  }

  SymbolTable build() { return builder_.build(); }
  SymbolTable build_objects() { return objects_.build(); }

 private:
  bool read_table(const ElfFile& file, uint64_t offset, uint64_t count, std::string strings,
                  const EhFrameRanges* bounds) {
    strings_.push_back(std::move(strings));
    // In portions: only a part of the symbols are functions, and there is no
    // need to have both tables in memory.
    count = std::min(count, kMaxSymbolsRead);
    std::vector<Elf64_Sym> portion(std::min<uint64_t>(count, kSymbolsPerRead));
    bool any = false;
    for (uint64_t done = 0; done < count && !builder_.full();) {
      const size_t wanted = std::min<uint64_t>(count - done, kSymbolsPerRead);
      const size_t bytes = file.read_at(offset + done * sizeof(Elf64_Sym), portion.data(),
                                        wanted * sizeof(Elf64_Sym));
      const size_t got = bytes / sizeof(Elf64_Sym);
      for (size_t i = 0; i < got; ++i) any |= add(file, portion[i], bounds);
      if (got < wanted) break;
      done += got;
    }
    return any;
  }

  static bool is_in(const std::vector<CodeRange>& ranges, uint64_t address) {
    return std::any_of(ranges.begin(), ranges.end(),
                       [&](const CodeRange& range) { return address - range.start < range.size; });
  }

  /// Whether it is a function.
  bool add(const ElfFile& file, const Elf64_Sym& symbol, const EhFrameRanges* bounds) {
    if (symbol.st_shndx == SHN_UNDEF || symbol.st_name >= strings_.back().size()) return false;
    switch (ELF64_ST_TYPE(symbol.st_info)) {
      case STT_FUNC:
      case STT_GNU_IFUNC:
        return add_function(file, symbol, bounds);
      case STT_OBJECT:
        add_object(symbol);
        return false;
      default:
        return false;
    }
  }

  bool add_function(const ElfFile& file, const Elf64_Sym& symbol, const EhFrameRanges* bounds) {
    if (!is_in(code_, symbol.st_value)) return false;
    // How far a symbol without a size may reach: the end of its section.
    uint64_t limit = 0;
    if (symbol.st_shndx < file.sections().size()) {
      const Elf64_Shdr& section = file.sections()[symbol.st_shndx].header;
      if (symbol.st_value - section.sh_addr < section.sh_size) {
        limit = section.sh_addr + section.sh_size;
      }
    }
    if (symbol.st_size == 0 && bounds) {
      const auto range = bounds->find(symbol.st_value);
      if (!range || range->start != symbol.st_value) return false;
      limit = std::min(limit, range->start + range->size);
    }
    builder_.add(name_of(symbol), symbol.st_value, symbol.st_size, limit, rank_of(symbol));
    return true;
  }

  void add_object(const Elf64_Sym& symbol) {
    if (symbol.st_size == 0 || !is_in(data_, symbol.st_value) ||
        symbol.st_value - constants_.start < constants_.size) {
      return;
    }
    objects_.add(name_of(symbol), symbol.st_value, symbol.st_size, 0, rank_of(symbol));
  }

  std::string_view name_of(const Elf64_Sym& symbol) const {
    const char* text = strings_.back().data() + symbol.st_name;
    const size_t room =
        std::min(strings_.back().size() - symbol.st_name, SymbolTableBuilder::kMaxNameBytes + 1);
    const std::string_view name(text, strnlen(text, room));
    // "memcpy@@GLIBC_2.14"
    const size_t at = name.find('@');
    return at != std::string_view::npos && at > 0 ? name.substr(0, at) : name;
  }

  static int rank_of(const Elf64_Sym& symbol) {
    const unsigned binding = ELF64_ST_BIND(symbol.st_info);
    return binding == STB_LOCAL ? 2 : binding == STB_WEAK ? 1 : 0;
  }

  std::vector<CodeRange> code_;
  std::vector<CodeRange> data_;      // that can be written to
  CodeRange constants_;              // of it
  std::deque<std::string> strings_;  // what the builders' names point into
  SymbolTableBuilder builder_;
  SymbolTableBuilder objects_;
};

}  // namespace

ElfSymbols ElfSymbols::load(const ElfFile& file, const ElfFile* debug_file) {
  SymbolReader reader(file);
  bool complete = reader.read(file, SHT_SYMTAB);
  if (debug_file) complete |= reader.read(*debug_file, SHT_SYMTAB);
  ElfSymbols result;
  if (!complete) result.ranges_ = EhFrameRanges::load(file);
  const EhFrameRanges* bounds = complete ? nullptr : &result.ranges_;
  if (file.sections().empty()) {
    reader.read_dynamic(file, bounds);
  } else {
    reader.read(file, SHT_DYNSYM, bounds);
  }
  result.symbols_ = reader.build();
  result.objects_ = reader.build_objects();
  return result;
}

}  // namespace lockscope
