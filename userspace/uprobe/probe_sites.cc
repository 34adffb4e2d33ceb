#include "uprobe/probe_sites.h"

#include <algorithm>
#include <optional>
#include <set>

#include "uprobe/instruction.h"
#include "uprobe/pthread_functions.h"
#include "uprobe/site_finder.h"
#include "uprobe/versioned_symbols.h"

namespace lockscope {
namespace {

constexpr uint64_t kMaxCodeBytes = 512 << 20;
// Of 42 names in a few versions each; more is no libc.
constexpr size_t kMaxFunctions = 200;

// Functions that tell one libc from the other, where symbols are all there is.
constexpr std::string_view kGlibcOnly = "gnu_get_libc_version";
constexpr std::string_view kGlibcStart = "__libc_start_main";
constexpr std::string_view kMuslOnly = "__libc_start_init";
constexpr std::string_view kCreate = "pthread_create";

const PthreadFunction* function_named(std::string_view name) {
  const auto functions = pthread_functions();
  const auto found = std::find_if(functions.begin(), functions.end(),
                                  [name](const auto& f) { return f.name == name; });
  return found == functions.end() ? nullptr : &*found;
}

bool is_wanted(std::string_view name) {
  return function_named(name) || name == kGlibcOnly || name == kGlibcStart || name == kMuslOnly ||
         name == kCreate;
}

std::string full_name(const VersionedSymbol& symbol) {
  if (symbol.version.empty()) return symbol.name;
  return symbol.name + (symbol.is_default ? "@@" : "@") + symbol.version;
}

// Where code comes from: segments may overlap, and what is looked at is what is probed.
struct Origin {
  uint64_t address, size, file_offset;
};

Code read_code(const ElfFile& file, std::vector<Origin>& origins) {
  Code code;
  for (const Elf64_Phdr& segment : file.segments()) {
    if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X)) continue;
    if (auto bytes = file.bytes_at(segment.p_offset, segment.p_filesz, kMaxCodeBytes)) {
      origins.push_back({segment.p_vaddr, bytes->size(), segment.p_offset});
      code.add(segment.p_vaddr, std::move(*bytes));
    }
  }
  return code;
}

class Planner {
 public:
  Planner(const ElfFile& file, std::vector<VersionedSymbol> symbols)
      : file_(file), symbols_(std::move(symbols)), code_(read_code(file, origins_)) {}

  Result<ProbePlan> run() {
    plan_.libc = find_libc();
    order_symbols();
    if (symbols_.empty()) return failed("no pthread functions, or they have no names");
    if (symbols_.size() > kMaxFunctions) return failed("more pthread functions than there are");
    if (is_forwarding()) {
      for (const auto& symbol : symbols_) {
        leave_out(symbol, "passes the call on to libpthread.so.0, which is probed instead");
      }
      return std::move(plan_);
    }
    for (const VersionedSymbol& symbol : symbols_) add(symbol);
    leave_out_doubles();
    return std::move(plan_);
  }

 private:
  bool has(std::string_view name) const {
    return std::any_of(symbols_.begin(), symbols_.end(),
                       [name](const auto& symbol) { return symbol.name == name; });
  }

  Libc find_libc() const {
    const bool glibc_version = std::any_of(symbols_.begin(), symbols_.end(), [](const auto& s) {
      return s.version.starts_with("GLIBC_");
    });
    if (glibc_version || has(kGlibcOnly)) return Libc::Glibc;
    if (has(kMuslOnly) || (file_.find_section(SHT_DYNSYM) && has(kGlibcStart))) return Libc::Musl;
    return has(kGlibcStart) ? Libc::Glibc : Libc::Unknown;
  }

  // glibc up to 2.33: libc.so.6 has the names for programs that have no threads.
  bool is_forwarding() const { return plan_.libc == Libc::Glibc && has_libc_ && !has_create_; }

  // Ours only: defaults first, so that others are measured against them; each
  // address once.
  void order_symbols() {
    has_create_ = has(kCreate);
    has_libc_ = has(kGlibcOnly);
    std::erase_if(symbols_, [](const auto& symbol) { return !function_named(symbol.name); });
    const auto rank = [](const VersionedSymbol& symbol) {
      return std::pair(!symbol.is_default, function_named(symbol.name));
    };
    std::stable_sort(symbols_.begin(), symbols_.end(),
                     [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
    std::set<uint64_t> known;
    std::erase_if(symbols_, [&](const auto& symbol) { return !known.insert(symbol.address).second; });
  }

  std::optional<uint64_t> offset_of(uint64_t address) const {
    for (const Origin& origin : origins_) {
      const uint64_t into = address - origin.address;
      if (into < origin.size) return origin.file_offset + into;
    }
    return std::nullopt;
  }

  void leave_out(const VersionedSymbol& symbol, std::string reason) {
    plan_.unprobed.push_back({full_name(symbol), std::move(reason)});
  }

  // A function for which another one is called: an old version, or C11's. Its calls
  // are seen there.
  const ProbeSite* made_of(const VersionedSymbol& symbol, const PthreadFunction& function) const {
    const bool is_wrapper =
        !symbol.is_default || symbol.name.starts_with("mtx_") || symbol.name.starts_with("cnd_") ||
        symbol.name.starts_with("thrd_") || symbol.name == "call_once";
    if (!is_wrapper) return nullptr;
    for (const uint64_t address : reachable(code_, {symbol.address, symbol.size}, true)) {
      const ProbeSite* site = site_at(address);
      if (site && site->call == function.call) return site;
    }
    return nullptr;
  }

  const ProbeSite* site_at(uint64_t address) const {
    for (const ProbeSite& site : plan_.sites) {
      if (site.address == address) return &site;
    }
    return nullptr;
  }

  void add(const VersionedSymbol& symbol) {
    const PthreadFunction& function = *function_named(symbol.name);
    if (symbol.is_indirect) return leave_out(symbol, "chosen when the program starts (IFUNC)");
    if (const ProbeSite* other = made_of(symbol, function)) {
      return leave_out(symbol, "its calls are seen in " + other->function);
    }
    const auto found = find_site(code_, {symbol.address, symbol.size}, function.arguments);
    if (!found) return leave_out(symbol, found.error().message);
    const auto offset = offset_of(found->address);
    if (!offset) return leave_out(symbol, "its code is not in the file");
    plan_.sites.push_back({function.call, full_name(symbol), symbol.address, found->address, *offset,
                           found->emulated, found->outcome_in_zero_flag,
                           code_.text_at(found->address), found->reason});
  }

  // A function that does nothing but go on to another one: its calls would be seen
  // twice.
  void leave_out_doubles() {
    std::vector<ProbeSite> kept;
    for (const ProbeSite& site : plan_.sites) {
      const ProbeSite* other = nullptr;
      for (const uint64_t address : straight_path(code_, site.function_address)) {
        const ProbeSite* there = site_at(address);
        if (there && there->address != site.address) other = there;
      }
      if (other) {
        plan_.unprobed.push_back({site.function, "its calls are seen in " + other->function});
      } else {
        kept.push_back(site);
      }
    }
    plan_.sites = std::move(kept);
  }

  const ElfFile& file_;
  std::vector<VersionedSymbol> symbols_;
  std::vector<Origin> origins_;
  Code code_;
  bool has_create_ = false, has_libc_ = false;
  ProbePlan plan_;
};

}  // namespace

Result<ProbePlan> plan_probes(const ElfFile& file) {
  if (file.header().e_machine != EM_X86_64) return failed("not a program for x86-64");
  return Planner(file, read_versioned_symbols(file, is_wanted)).run();
}

}  // namespace lockscope
