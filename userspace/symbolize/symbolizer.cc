#include "symbolize/symbolizer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <unordered_map>
#include <utility>

#include "process/vdso.h"
#include "symbolize/debug_file.h"
#include "symbolize/demangle.h"
#include "symbolize/jit_map.h"

namespace lockscope {
namespace {

// Answers kept, over all files: about 200 bytes each.
constexpr size_t kMaxCachedAddresses = 64 << 10;
// Mappings and files remembered, over all processes: a backstop against missing
// forget()s.
constexpr size_t kMaxMappings = 64 << 10;
constexpr size_t kMaxFiles = 8 << 10;
// Modules whose files stay open, to be loaded again when their process is gone:
// of 1,024 descriptors that a process may have.
constexpr size_t kMaxKeptOpen = 256;

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

Frame unnamed(const std::string& module, uint64_t offset) {
  return {.function = module + "+" + hex(offset), .module = module};
}

}  // namespace

// Symbols in the parser, and what came of them.
struct Symbolizer::Table {
  std::string name;  // of the module, as in frames
  UniqueFd file;     // these are kept to load the symbols again
  UniqueFd debug_file;
  UniqueFd supplement;
  bool is_jit_map = false;
  bool lines = false;
  bool has_names = true;  // of all its functions, for all we know
  SymbolsId id = 0;
  uint64_t bytes = 0;  // in the parser's memory
  uint64_t count = 0;
  std::vector<LoadedSymbols::Segment> segments;
  uint64_t last_used = 0;
  // By address; empty when nothing there has a name.
  std::unordered_map<uint64_t, std::vector<Frame>> answers;

  void close() {
    file.reset();
    debug_file.reset();
    supplement.reset();
  }

  std::optional<uint64_t> address_of_offset(uint64_t offset) const {
    for (const auto& s : segments) {
      if (offset >= s.file_offset && offset - s.file_offset < s.size) {
        return s.address + (offset - s.file_offset);
      }
    }
    return std::nullopt;
  }

  /// Where the file says that the mapping's first byte is loaded. Mappings are of
  /// whole pages: they may begin before their segment, within another.
  std::optional<uint64_t> address_of_mapping(const Mapping& mapping) const {
    for (const auto& s : segments) {
      if (s.file_offset < mapping.file_offset + (mapping.end - mapping.start) &&
          mapping.file_offset < s.file_offset + s.size) {
        return s.address - s.file_offset + mapping.file_offset;
      }
    }
    return std::nullopt;
  }

  bool is_loaded(uint64_t address) const {
    return std::any_of(segments.begin(), segments.end(),
                       [&](const auto& s) { return address - s.address < s.memory_size; });
  }

  std::vector<Frame> frames_of(Names names) const {
    std::vector<Frame> frames = std::move(names.frames);
    if (frames.empty()) return frames;
    std::string& function = frames.back().function;
    if (function.empty() && names.nameless_start != 0) {
      function = name + "!fn@" + hex(names.nameless_start);
    }
    if (function.empty()) return {};
    for (Frame& frame : frames) {
      frame.module = name;
      if (frame.function.empty()) frame.function = "[inlined]";
    }
    return frames;
  }
};

struct Symbolizer::Module : Table {
  std::string build_id;
  bool is_elf = false;
  bool kept_open = false;
  bool unfetchable = false;  // names that it has not are not to be had elsewhere
};

struct Symbolizer::JitTable : Table {
  JitMapStamp stamp;
  std::chrono::steady_clock::time_point checked;
};

// Where a name is to be looked up, and what to say if there is none.
struct Symbolizer::Place {
  std::shared_ptr<Table> table;  // may be null
  uint64_t address = 0;          // in it
  Frame otherwise;
};

Symbolizer::Symbolizer(FileParser& parser, SymbolizerOptions options)
    : parser_(parser), options_(std::move(options)) {}
Symbolizer::~Symbolizer() = default;

std::vector<Frame> Symbolizer::symbolize(const CodeAddress& address) {
  const Place place = place_of(address);
  if (place.table) {
    auto& answers = place.table->answers;
    if (!answers.contains(place.address)) {
      if (cached_addresses_ >= kMaxCachedAddresses) forget_answers();
      ask(*place.table, {place.address});
    }
    const auto& frames = answers[place.address];
    if (!frames.empty()) return frames;
  }
  return {place.otherwise};
}

void Symbolizer::prepare(std::span<const CodeAddress> addresses) {
  if (cached_addresses_ + addresses.size() > kMaxCachedAddresses) forget_answers();
  std::map<std::shared_ptr<Table>, std::vector<uint64_t>> wanted;
  for (const CodeAddress& address : addresses) {
    const Place place = place_of(address);
    if (!place.table || place.table->answers.contains(place.address)) continue;
    wanted[place.table].push_back(place.address);
  }
  for (auto& [table, list] : wanted) {
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
    ask(*table, list);
  }
}

Symbolizer::Place Symbolizer::place_of(const CodeAddress& at) {
  // A call may be the last instruction of its function, even of its mapping.
  const uint64_t step = at.kind == AddressKind::Return && at.address > 0 ? 1 : 0;
  const uint64_t lookup = at.address - step;
  const Mapping* mapping = find_mapping(*at.maps, lookup);
  if (!mapping) return {nullptr, 0, unnamed("[unknown]", at.address)};
  const uint64_t offset = lookup - mapping->start + mapping->file_offset;
  if (!mapping->has_file() && mapping->path != "[vdso]") {
    const auto jit = jit_table(at.pid, lookup);
    const std::string name = !mapping->path.empty() ? sanitize(mapping->path)
                             : jit->count > 0       ? "[jit]"
                                                    : "[anon]";
    return {jit, lookup, unnamed(name, lookup - mapping->start + step)};
  }

  const auto module = module_for(at.pid, *mapping);
  // Run-time systems also put code into files without a name (memfd).
  if (!module->is_elf) {
    return {jit_table(at.pid, lookup), lookup, unnamed(module->name, offset + step)};
  }
  const auto in_file = module->address_of_offset(offset);
  if (!in_file) return {nullptr, 0, unnamed(module->name, offset + step)};
  if (!module->has_names && !module->unfetchable) fetch_names(at.pid, *mapping, *module);
  // The address as the stack has it.
  return {module, *in_file, unnamed(module->name, *in_file + step)};
}

std::vector<NamedObject> Symbolizer::find_objects(pid_t pid, const std::vector<Mapping>& maps,
                                                  std::span<const uint64_t> addresses) {
  std::vector<NamedObject> objects(addresses.size());
  for (const Mapping& mapping : maps) {
    if (!mapping.executable || !mapping.has_file()) continue;
    const auto module = module_for(pid, mapping);
    const auto start = module->address_of_mapping(mapping);
    if (!start) continue;
    std::vector<size_t> places;
    std::vector<uint64_t> wanted;
    for (size_t i = 0; i < addresses.size(); ++i) {
      // Data is loaded as far from where the file says as code is.
      const uint64_t in_file = addresses[i] - mapping.start + *start;
      if (!objects[i].name.empty() || !module->is_loaded(in_file)) continue;
      places.push_back(i);
      wanted.push_back(in_file);
    }
    auto found = ask_objects(*module, wanted);
    for (size_t i = 0; i < found.size(); ++i) objects[places[i]] = std::move(found[i]);
  }
  return objects;
}

std::string Symbolizer::build_id(pid_t pid, const Mapping& mapping) {
  if (!mapping.has_file() && mapping.path != "[vdso]") return {};
  return module_for(pid, mapping)->build_id;
}

void Symbolizer::preload(pid_t pid, const std::vector<Mapping>& maps) {
  for (const Mapping& mapping : maps) {
    if (mapping.executable && mapping.has_file()) module_for(pid, mapping);
  }
}

void Symbolizer::forget(pid_t pid) {
  std::erase_if(by_mapping_, [pid](const auto& entry) { return entry.first.pid == pid; });
  const auto jit = jit_tables_.find(pid);
  if (jit == jit_tables_.end()) return;
  unload(*jit->second);
  jit_tables_.erase(jit);
}

// The run-time system appends to its map as it goes, so an unknown address is a
// reason to look again; but not at every one.
std::shared_ptr<Symbolizer::JitTable> Symbolizer::jit_table(pid_t pid, uint64_t address) {
  if (jit_tables_.size() >= kMaxJitMaps && !jit_tables_.contains(pid)) {
    const auto oldest = std::min_element(
        jit_tables_.begin(), jit_tables_.end(),
        [](const auto& a, const auto& b) { return a.second->last_used < b.second->last_used; });
    unload(*oldest->second);
    oldest->second->close();
    jit_tables_.erase(oldest);
  }
  auto& table = jit_tables_[pid];
  if (!table) {
    table = std::make_shared<JitTable>();
    table->name = "[jit]";
    table->is_jit_map = true;
  }
  table->last_used = ++clock_;
  const auto known = table->answers.find(address);
  if (known != table->answers.end() && !known->second.empty()) return table;
  const auto now = std::chrono::steady_clock::now();
  if (now - table->checked < kJitMapRecheck) return table;
  table->checked = now;
  if (auto file = open_jit_map(pid, &table->stamp)) {
    unload(*table);
    cached_addresses_ -= table->answers.size();
    table->answers.clear();
    table->file = std::move(*file);
    load(*table);
  }
  return table;
}

std::shared_ptr<Symbolizer::Module> Symbolizer::module_for(pid_t pid, const Mapping& mapping) {
  if (!mapping.has_file()) {
    if (!vdso_) vdso_ = open_vdso_module();
    return vdso_;
  }
  const MappingKey key{pid, mapping.start, mapping.file_offset, mapping.inode};
  auto known = by_mapping_.find(key);
  if (known == by_mapping_.end()) {
    if (by_mapping_.size() >= kMaxMappings) by_mapping_.clear();
    known = by_mapping_.emplace(key, open(pid, mapping)).first;
  }
  Module& module = *known->second;
  module.last_used = ++clock_;
  if (module.is_elf && !module.kept_open && !parser_.holds(module.id)) {
    if (auto file = open_file_of(pid, mapping)) {
      find_sources(pid, mapping, std::move(*file), module);
      load(module);
      module.close();
    }
  }
  return known->second;
}

std::shared_ptr<Symbolizer::Module> Symbolizer::open(pid_t pid, const Mapping& mapping) {
  auto module = std::make_shared<Module>();
  module->name = base_name(mapping.path);
  auto file = open_file_of(pid, mapping);
  struct stat st;
  if (!file || ::fstat(file->get(), &st) != 0) return module;
  const FileKey key{st.st_dev,         st.st_ino,          st.st_size,
                    st.st_mtim.tv_sec, st.st_mtim.tv_nsec, module->name};
  if (const auto known = by_file_.find(key); known != by_file_.end()) return known->second;
  if (by_file_.size() >= kMaxFiles) forget_files();

  module->last_used = ++clock_;
  find_sources(pid, mapping, std::move(*file), *module);
  load(*module);
  module->kept_open = module->is_elf && kept_open_ < kMaxKeptOpen;
  kept_open_ += module->kept_open;
  if (!module->kept_open) module->close();
  by_file_.emplace(key, module);
  return module;
}

void Symbolizer::find_sources(pid_t pid, const Mapping& mapping, UniqueFd file, Module& module) {
  module.file = std::move(file);
  module.lines = options_.lines;
  const auto links = parser_.links(module.file.get());
  if (!links) return;
  module.is_elf = true;
  module.build_id = links->build_id;
  const bool wants_lines = options_.lines && !links->has_lines;
  if (!options_.debug_files || (links->has_symbols && !options_.lines)) return;
  const std::vector<std::string> roots = {root_of(pid), "/"};
  if (wants_lines || !links->has_symbols) {
    module.debug_file = find_debug_file(parser_, *links, mapping.path, roots);
  }
  if (!options_.lines) return;
  const auto with_lines =
      wants_lines && module.debug_file ? parser_.links(module.debug_file.get()) : links;
  if (with_lines) module.supplement = find_supplement(parser_, *with_lines, roots);
}

// Tried once, as long as it does not work.
void Symbolizer::fetch_names(pid_t pid, const Mapping& mapping, Module& module) {
  module.unfetchable = true;
  if (!options_.fetch_debug_file || module.build_id.empty() || !mapping.has_file()) return;
  UniqueFd debug_file = options_.fetch_debug_file(module.build_id);
  const auto links = debug_file ? parser_.links(debug_file.get()) : failed("none");
  if (!links || links->build_id != module.build_id) return;
  if (!module.file) {
    auto file = open_file_of(pid, mapping);
    if (!file) return;
    module.file = std::move(*file);
  }
  module.debug_file = std::move(debug_file);
  if (options_.lines) module.supplement = find_supplement(parser_, *links, {root_of(pid), "/"});
  unload(module);
  module.unfetchable = !load(module);
  if (!module.kept_open) module.close();
}

std::shared_ptr<Symbolizer::Module> Symbolizer::open_vdso_module() {
  auto module = std::make_shared<Module>();
  module->name = "[vdso]";
  auto file = open_vdso();
  if (!file) return module;
  module->kept_open = true;
  find_sources(::getpid(), {.path = module->name}, std::move(*file), *module);
  load(*module);
  return module;
}

/// Sees to it that the parser holds the table; false if it can't.
bool Symbolizer::load(Table& table) {
  if (parser_.holds(table.id)) return true;
  table_bytes_ -= std::exchange(table.bytes, 0);
  table.id = 0;
  if (!table.file) return false;
  auto loaded = table.is_jit_map ? parser_.load_jit_map(table.file.get())
                                 : parser_.load_symbols({.file = table.file.get(),
                                                         .debug_file = table.debug_file.get(),
                                                         .supplement = table.supplement.get(),
                                                         .lines = table.lines});
  if (!loaded) return false;
  table.id = loaded->id;
  table.bytes = loaded->table_bytes;
  table.count = loaded->count;
  table.has_names = loaded->has_names;
  table.segments = std::move(loaded->segments);
  table_bytes_ += table.bytes;
  shrink(table);
  return true;
}

void Symbolizer::unload(Table& table) {
  if (table.id != 0) parser_.unload(table.id);
  table_bytes_ -= std::exchange(table.bytes, 0);
  table.id = 0;
}

void Symbolizer::ask(Table& table, const std::vector<uint64_t>& addresses) {
  std::vector<Names> names;
  for (int tries = 0; tries < 2 && names.empty() && load(table); ++tries) {
    if (auto found = parser_.find(table.id, addresses)) names = std::move(*found);
    // DWARF is what is hardest to read: better no lines than no names.
    if (names.empty()) table.lines = false;
  }
  // What could not be found out now is not asked again for every stack.
  names.resize(addresses.size());
  for (size_t i = 0; i < addresses.size(); ++i) {
    const bool is_new =
        table.answers.emplace(addresses[i], table.frames_of(std::move(names[i]))).second;
    cached_addresses_ += is_new;
  }
}

std::vector<NamedObject> Symbolizer::ask_objects(Table& table,
                                                 const std::vector<uint64_t>& addresses) {
  if (addresses.empty()) return {};
  for (int tries = 0; tries < 2 && load(table); ++tries) {
    if (auto found = parser_.find_objects(table.id, addresses)) return std::move(*found);
  }
  return {};
}

void Symbolizer::forget_answers() {
  for (auto& [key, module] : by_file_) module->answers.clear();
  for (auto& [pid, table] : jit_tables_) table->answers.clear();
  if (vdso_) vdso_->answers.clear();
  cached_addresses_ = 0;
}

void Symbolizer::forget_files() {
  forget_answers();
  for (auto& [key, module] : by_file_) unload(*module);
  by_mapping_.clear();
  by_file_.clear();
  kept_open_ = 0;
}

// Drops the least recently used tables until the rest fits.
void Symbolizer::shrink(const Table& keep) {
  while (table_bytes_ > options_.max_table_bytes) {
    Table* oldest = nullptr;
    const auto consider = [&](Table& table) {
      if (&table == &keep || table.bytes == 0) return;
      if (!oldest || table.last_used < oldest->last_used) oldest = &table;
    };
    for (auto& [key, module] : by_file_) consider(*module);
    for (auto& [pid, table] : jit_tables_) consider(*table);
    if (!oldest) return;
    unload(*oldest);
  }
}

}  // namespace lockscope
