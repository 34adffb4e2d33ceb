#include "parse/local_parser.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "symbolize/demangle.h"
#include "symbolize/dwarf_lines.h"
#include "symbolize/elf_links.h"
#include "symbolize/elf_symbols.h"
#include "symbolize/go_lines.h"
#include "symbolize/jit_map.h"
#include "symbolize/language.h"
#include "symbolize/mini_debug_info.h"
#include "unwind/byte_source.h"
#include "uprobe/probe_sites.h"

namespace lockscope {
namespace {

// A descriptor of our own, as tables outlive the caller's.
Result<ElfFile> open_elf(int fd) {
  UniqueFd own(::dup(fd));
  if (!own) return failed(std::string("cannot open: ") + std::strerror(errno));
  return ElfFile::open(std::move(own));
}

std::optional<ElfFile> open_optional(int fd) {
  auto file = fd >= 0 ? open_elf(fd) : failed("none");
  if (!file) return std::nullopt;
  return std::move(*file);
}

std::vector<LoadedSymbols::Segment> loaded_segments(const ElfFile& file) {
  std::vector<Elf64_Phdr> headers = file.segments();
  std::erase_if(headers, [](const Elf64_Phdr& s) { return s.p_type != PT_LOAD; });
  std::stable_partition(headers.begin(), headers.end(),
                        [](const Elf64_Phdr& s) { return s.p_flags & PF_X; });
  std::vector<LoadedSymbols::Segment> segments;
  for (const Elf64_Phdr& s : headers) {
    segments.push_back({s.p_offset, s.p_filesz, s.p_vaddr, s.p_memsz});
  }
  return segments;
}

}  // namespace

class LocalParser::Table {
 public:
  virtual ~Table() = default;
  virtual Names find(uint64_t address) = 0;
  virtual NamedObject find_object(uint64_t) { return {}; }
};

class LocalParser::ElfTable : public Table {
 public:
  ElfTable(ElfSymbols symbols, std::unique_ptr<LineTable> go, std::optional<ElfFile> lines,
           std::optional<ElfFile> supplement)
      : symbols_(std::move(symbols)),
        go_(std::move(go)),
        lines_file_(std::move(lines)),
        supplement_(std::move(supplement)) {}

  Names find(uint64_t address) override {
    if (go_) {
      auto frames = go_->find(address);
      if (!frames.empty()) return {.frames = std::move(frames)};
    }
    if (lines_file_) {
      lines_ = open_dwarf_lines(*lines_file_, supplement_ ? &*supplement_ : nullptr);
      lines_file_.reset();
      supplement_.reset();
    }
    Names names;
    if (lines_) names.frames = lines_->find(address);
    if (names.frames.empty()) names.frames.emplace_back();
    // The symbol table's name for the function itself: the same whether or not
    // there are lines.
    Frame& function = names.frames.back();
    if (const auto symbol = symbols_.find(address)) {
      function.function = demangle(symbol->name);
    } else if (const auto range = symbols_.find_range(address); range && !lines_) {
      names.nameless_start = range->start;
    }
    return names;
  }

  NamedObject find_object(uint64_t address) override {
    const auto object = symbols_.find_object(address);
    if (!object) return {};
    return {demangle(object->name), address - object->start};
  }

 private:
  ElfSymbols symbols_;
  std::unique_ptr<LineTable> go_;      // null: no Go code
  std::optional<ElfFile> lines_file_;  // until the first line is asked for
  std::optional<ElfFile> supplement_;
  std::unique_ptr<LineTable> lines_;
};

class LocalParser::JitTable : public Table {
 public:
  explicit JitTable(JitMap map) : map_(std::move(map)) {}

  Names find(uint64_t address) override {
    const auto symbol = map_.find(address);
    if (!symbol) return {};
    return {.frames = {{.function = demangle(symbol->name)}}};
  }

 private:
  JitMap map_;
};

LocalParser::LocalParser() = default;
LocalParser::~LocalParser() = default;

Result<CfaTable> LocalParser::unwind_table(int fd) {
  return build_cfa_table(ByteSource::of_file(fd));
}

Result<ElfLinks> LocalParser::links(int fd) {
  const auto file = open_elf(fd);
  if (!file) return file.error();
  return read_links(*file);
}

Result<uint32_t> LocalParser::checksum(int fd) {
  const auto file = open_elf(fd);
  if (!file) return file.error();
  if (const auto checksum = file_checksum(*file)) return *checksum;
  return failed("too large, or cut short");
}

Result<Compiler> LocalParser::compiler(int fd) {
  const auto file = open_elf(fd);
  if (!file) return file.error();
  return compiler_of(*file);
}

Result<ProbePlan> LocalParser::probe_plan(int fd) {
  const auto file = open_elf(fd);
  if (!file) return file.error();
  return plan_probes(*file);
}

Result<LoadedSymbols> LocalParser::load_symbols(const SymbolSources& sources) {
  auto file = open_elf(sources.file);
  if (!file) return file.error();
  auto debug_file = open_optional(sources.debug_file);
  auto supplement = open_optional(sources.supplement);
  std::optional<ElfFile> mini;
  if (!debug_file && !file->find_section(SHT_SYMTAB)) mini = read_mini_debug_info(*file);

  LoadedSymbols loaded{.segments = loaded_segments(*file)};
  auto symbols = ElfSymbols::load(*file, debug_file ? &*debug_file : mini ? &*mini : nullptr);
  loaded.table_bytes = symbols.size_bytes();
  loaded.count = symbols.size();
  auto go = open_go_lines(*file);
  loaded.has_names = debug_file || mini || go || file->find_section(SHT_SYMTAB);
  std::optional<ElfFile> lines;
  if (sources.lines) {
    lines = file->find_section(".debug_info") || !debug_file ? std::move(*file)
                                                             : std::move(*debug_file);
  }
  loaded.id = keep(std::make_unique<ElfTable>(std::move(symbols), std::move(go), std::move(lines),
                                              std::move(supplement)));
  return loaded;
}

Result<LoadedSymbols> LocalParser::load_jit_map(int fd) {
  JitMap map = JitMap::read(fd);
  LoadedSymbols loaded{.table_bytes = map.size_bytes(), .count = map.size()};
  loaded.id = keep(std::make_unique<JitTable>(std::move(map)));
  return loaded;
}

Result<std::vector<Names>> LocalParser::find(SymbolsId id, std::span<const uint64_t> addresses) {
  const auto table = tables_.find(id);
  if (table == tables_.end()) return failed("no such symbols");
  std::vector<Names> names;
  for (const uint64_t address : addresses) names.push_back(table->second->find(address));
  return names;
}

Result<std::vector<NamedObject>> LocalParser::find_objects(SymbolsId id,
                                                           std::span<const uint64_t> addresses) {
  const auto table = tables_.find(id);
  if (table == tables_.end()) return failed("no such symbols");
  std::vector<NamedObject> objects;
  for (const uint64_t address : addresses) objects.push_back(table->second->find_object(address));
  return objects;
}

void LocalParser::unload(SymbolsId id) { tables_.erase(id); }

SymbolsId LocalParser::keep(std::unique_ptr<Table> table) {
  tables_.emplace(++last_id_, std::move(table));
  return last_id_;
}

}  // namespace lockscope
