#include "symbolize/symbolizer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <unordered_map>

#include "symbolize/debug_file.h"
#include "symbolize/demangle.h"
#include "symbolize/elf_file.h"
#include "symbolize/elf_symbols.h"
#include "symbolize/jit_map.h"
#include "symbolize/mini_debug_info.h"

namespace lockscope {
namespace {

// Answers kept, over all files: about 200 bytes each.
constexpr size_t kMaxCachedAddresses = 64 << 10;
// Mappings remembered, over all processes: a backstop against missing forget()s.
constexpr size_t kMaxMappings = 64 << 10;

// JIT maps kept, one a process; and how often one is looked at for new names.
constexpr size_t kMaxJitMaps = 64;
constexpr std::chrono::milliseconds kJitMapRecheck{100};

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string base_name(const std::string& path) {
  return sanitize(std::string_view(path).substr(path.rfind('/') + 1));
}

std::string root_of(pid_t pid) { return "/proc/" + std::to_string(pid) + "/root"; }

// The mapped file, and when the process is gone, the one of the same name in
// our own root, if it is the same.
Result<UniqueFd> open_file_of(pid_t pid, const Mapping& mapping) {
  auto fd = open_mapped_file(pid, mapping);
  if (fd) return fd;
  auto own = open_in_root("/", mapping.path);
  struct stat st;
  if (own && ::fstat(own->get(), &st) == 0 && st.st_ino == mapping.inode) return own;
  return fd;
}

bool is_owned_by_root(const ElfFile& file) {
  struct stat st;
  return file.fd() >= 0 && ::fstat(file.fd(), &st) == 0 && st.st_uid == 0 &&
         (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

Frame unnamed(const std::string& module, uint64_t offset) {
  return {.function = module + "+" + hex(offset), .module = module};
}

}  // namespace

// What is kept of a file.
struct Symbolizer::Module {
  std::string name;
  std::string build_id;
  bool is_elf = false;
  std::vector<Elf64_Phdr> segments;  // those that are loaded, code first
  ElfSymbols symbols;
  std::optional<ElfFile> debug_info;  // until the first line is asked for
  bool debug_info_trusted = false;
  std::unique_ptr<LineTable> lines;
  uint64_t last_used = 0;
  std::unordered_map<uint64_t, std::vector<Frame>> answers;  // by lookup address

  explicit Module(std::string name) : name(std::move(name)) {}

  void read(const ElfFile& file, const ElfFile* debug_file) {
    is_elf = true;
    build_id = file.build_id();
    segments = file.segments();
    std::erase_if(segments, [](const Elf64_Phdr& s) { return s.p_type != PT_LOAD; });
    std::stable_partition(segments.begin(), segments.end(),
                          [](const Elf64_Phdr& s) { return s.p_flags & PF_X; });
    symbols = ElfSymbols::load(file, debug_file);
  }

  std::optional<uint64_t> address_of_offset(uint64_t offset) const {
    for (const Elf64_Phdr& s : segments) {
      if (offset >= s.p_offset && offset - s.p_offset < s.p_filesz) {
        return s.p_vaddr + (offset - s.p_offset);
      }
    }
    return std::nullopt;
  }

  /// Empty when nothing there has a name.
  std::vector<Frame> frames_at(uint64_t address, OpenLines open_lines) {
    if (debug_info) {
      lines = open_lines(*debug_info, debug_info_trusted);
      debug_info.reset();
    }
    std::vector<Frame> frames;
    if (lines) frames = lines->find(address);
    if (frames.empty()) frames.emplace_back();
    // The symbol table's name for the function itself: the same whether or not
    // there are lines.
    if (const auto symbol = symbols.find(address)) {
      frames.back().function = demangle(symbol->name);
    } else if (const auto range = symbols.find_range(address); range && !lines) {
      frames.back().function = name + "!fn@" + hex(range->start);
    }
    if (frames.back().function.empty()) return {};
    for (Frame& frame : frames) {
      frame.module = name;
      if (frame.function.empty()) frame.function = "[inlined]";
    }
    return frames;
  }
};

struct Symbolizer::JitState {
  JitMap map;
  JitMap::Stamp stamp;
  std::chrono::steady_clock::time_point checked;
};

Symbolizer::Symbolizer(SymbolizerOptions options) : options_(options) {}
Symbolizer::~Symbolizer() = default;

std::vector<Frame> Symbolizer::symbolize(pid_t pid, const std::vector<Mapping>& maps,
                                         uint64_t address, AddressKind kind) {
  // A call may be the last instruction of its function, even of its mapping.
  const uint64_t step = kind == AddressKind::Return && address > 0 ? 1 : 0;
  const uint64_t lookup = address - step;
  const Mapping* mapping = find_mapping(maps, lookup);
  if (!mapping) return {unnamed("[unknown]", address)};
  const uint64_t offset = lookup - mapping->start + mapping->file_offset;
  if (!mapping->has_file() && mapping->path != "[vdso]") {
    if (auto frame = jit_frame(pid, lookup)) return {*frame};
    if (mapping->path.empty() && jit_maps_[pid].map.size() > 0) {
      return {unnamed("[jit]", lookup - mapping->start + step)};
    }
    const std::string name = mapping->path.empty() ? "[anon]" : sanitize(mapping->path);
    return {unnamed(name, lookup - mapping->start + step)};
  }

  Module& module = module_for(pid, *mapping);
  // Run-time systems also put code into files without a name (memfd).
  if (!module.is_elf) {
    if (auto frame = jit_frame(pid, lookup)) return {*frame};
  }
  const auto in_file = module.address_of_offset(offset);
  if (!in_file) return {unnamed(module.name, offset + step)};
  const auto known = module.answers.find(*in_file);
  if (known != module.answers.end()) return known->second;
  std::vector<Frame> frames = module.frames_at(*in_file, options_.open_lines);
  // The address as the stack has it.
  if (frames.empty()) return {unnamed(module.name, *in_file + step)};
  if (cached_addresses_ >= kMaxCachedAddresses) {
    for (auto& [key, m] : by_file_) m->answers.clear();
    if (vdso_) vdso_->answers.clear();
    cached_addresses_ = 0;
  }
  module.answers.emplace(*in_file, frames);
  ++cached_addresses_;
  return frames;
}

std::string Symbolizer::build_id(pid_t pid, const Mapping& mapping) {
  if (!mapping.has_file() && mapping.path != "[vdso]") return {};
  return module_for(pid, mapping).build_id;
}

void Symbolizer::preload(pid_t pid, const std::vector<Mapping>& maps) {
  for (const Mapping& mapping : maps) {
    if (mapping.executable && mapping.has_file()) module_for(pid, mapping);
  }
}

void Symbolizer::forget(pid_t pid) {
  std::erase_if(by_mapping_, [pid](const auto& entry) { return entry.first.pid == pid; });
  jit_maps_.erase(pid);
}

// The run-time system appends to its map as it goes, so an unknown address is a
// reason to look again; but not at every one.
std::optional<Frame> Symbolizer::jit_frame(pid_t pid, uint64_t address) {
  if (jit_maps_.size() >= kMaxJitMaps && !jit_maps_.contains(pid)) jit_maps_.clear();
  JitState& state = jit_maps_[pid];
  auto symbol = state.map.find(address);
  const auto now = std::chrono::steady_clock::now();
  if (!symbol && now - state.checked >= kJitMapRecheck) {
    state.checked = now;
    if (auto map = JitMap::load(pid, &state.stamp)) state.map = std::move(*map);
    symbol = state.map.find(address);
  }
  if (!symbol) return std::nullopt;
  return Frame{.function = demangle(symbol->name), .module = "[jit]"};
}

Symbolizer::Module& Symbolizer::module_for(pid_t pid, const Mapping& mapping) {
  if (!mapping.has_file()) {
    if (!vdso_) vdso_ = load_vdso();
    return *vdso_;
  }
  const MappingKey key{pid, mapping.start, mapping.file_offset, mapping.inode};
  auto known = by_mapping_.find(key);
  if (known == by_mapping_.end() && by_mapping_.size() >= kMaxMappings) by_mapping_.clear();
  if (known == by_mapping_.end()) known = by_mapping_.emplace(key, load(pid, mapping)).first;
  known->second->last_used = ++clock_;
  return *known->second;
}

std::shared_ptr<Symbolizer::Module> Symbolizer::load(pid_t pid, const Mapping& mapping) {
  auto fd = open_file_of(pid, mapping);
  struct stat st;
  if (!fd || ::fstat(fd->get(), &st) != 0) {
    return std::make_shared<Module>(base_name(mapping.path));
  }
  const std::string name = base_name(mapping.path);
  const FileKey key{st.st_dev, st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec, name};
  if (auto known = by_file_.find(key); known != by_file_.end()) return known->second;

  auto module = std::make_shared<Module>(name);
  if (auto file = ElfFile::open(std::move(*fd))) {
    std::optional<ElfFile> debug_file;
    const bool wants_lines = options_.open_lines && !file->find_section(".debug_info");
    const bool wants_symbols = !file->find_section(SHT_SYMTAB);
    if (options_.debug_files && (wants_lines || wants_symbols)) {
      debug_file = find_debug_file(*file, mapping.path, {root_of(pid), "/"});
    }
    if (wants_symbols && !debug_file) debug_file = read_mini_debug_info(*file);
    module->read(*file, debug_file ? &*debug_file : nullptr);
    if (options_.open_lines) {
      const bool trusted =
          is_owned_by_root(*file) && (!debug_file || is_owned_by_root(*debug_file));
      ElfFile& with_lines = wants_lines && debug_file ? *debug_file : *file;
      if ((trusted || options_.lines_of_any_owner) && with_lines.find_section(".debug_info")) {
        module->debug_info = std::move(with_lines);
        module->debug_info_trusted = trusted;
      }
    }
  }
  by_file_.emplace(key, module);
  table_bytes_ += module->symbols.size_bytes();
  module->last_used = ++clock_;
  shrink(module.get());
  return module;
}

std::shared_ptr<Symbolizer::Module> Symbolizer::load_vdso() {
  auto module = std::make_shared<Module>("[vdso]");
  // The kernel maps the same image into every process: take our own.
  const auto maps = read_maps(::getpid());
  if (!maps) return module;
  for (const Mapping& mapping : *maps) {
    if (mapping.path != "[vdso]") continue;
    auto file = ElfFile::from_memory(
        std::string(reinterpret_cast<const char*>(mapping.start), mapping.end - mapping.start));
    if (file) module->read(*file, nullptr);
  }
  return module;
}

// Drops the least recently used tables until the rest fits.
void Symbolizer::shrink(const Module* keep) {
  while (table_bytes_ > options_.max_table_bytes && by_file_.size() > 1) {
    auto oldest = by_file_.end();
    for (auto it = by_file_.begin(); it != by_file_.end(); ++it) {
      if (it->second.get() == keep) continue;
      if (oldest == by_file_.end() || it->second->last_used < oldest->second->last_used) {
        oldest = it;
      }
    }
    const auto module = oldest->second;
    table_bytes_ -= module->symbols.size_bytes();
    cached_addresses_ -= module->answers.size();
    by_file_.erase(oldest);
    std::erase_if(by_mapping_, [&](const auto& entry) { return entry.second == module; });
  }
}

}  // namespace lockscope
