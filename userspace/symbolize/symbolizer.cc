#include "symbolize/symbolizer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <unordered_map>

#include "symbolize/debug_file.h"
#include "symbolize/demangle.h"
#include "symbolize/elf_file.h"
#include "symbolize/elf_symbols.h"

namespace lockscope {
namespace {

// Answers kept, over all files: about 200 bytes each.
constexpr size_t kMaxCachedAddresses = 64 << 10;
// Mappings remembered, over all processes: a backstop against missing forget()s.
constexpr size_t kMaxMappings = 64 << 10;

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
  std::vector<Frame> frames_at(uint64_t address) const {
    if (const auto symbol = symbols.find(address)) {
      return {{.function = demangle(symbol->name), .module = name}};
    }
    if (const auto range = symbols.find_range(address)) {
      return {{.function = name + "!fn@" + hex(range->start), .module = name}};
    }
    return {};
  }
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
    const std::string name = mapping->path.empty() ? "[anon]" : sanitize(mapping->path);
    return {unnamed(name, lookup - mapping->start + step)};
  }

  Module& module = module_for(pid, *mapping);
  const auto in_file = module.address_of_offset(offset);
  if (!in_file) return {unnamed(module.name, offset + step)};
  const auto known = module.answers.find(*in_file);
  if (known != module.answers.end()) return known->second;
  std::vector<Frame> frames = module.frames_at(*in_file);
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
    if (options_.debug_files && !file->find_section(SHT_SYMTAB)) {
      debug_file = find_debug_file(*file, mapping.path, {root_of(pid), "/"});
    }
    module->read(*file, debug_file ? &*debug_file : nullptr);
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
