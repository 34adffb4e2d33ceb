#include "symbolize/language.h"

#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "symbolize/elf_file.h"
#include "symbolize/go_module.h"

namespace lockscope {
namespace {

constexpr uint64_t kMaxCommentBytes = 1 << 20;
constexpr uint64_t kMaxConstantsBytes = 32 << 20;

bool maps_library(const std::vector<Mapping>& maps, std::string_view prefix) {
  return std::any_of(maps.begin(), maps.end(), [&](const Mapping& mapping) {
    const std::string_view path = mapping.path;
    return path.substr(path.rfind('/') + 1).starts_with(prefix);
  });
}

// Whether the messages of panics name the standard library's source, as in
// "/rustc/9fc6b43126469e3858e2fe86cafb4f0fd5068869/library/std/src/..." or
// "/usr/src/rustc-1.63.0/library/...". Spelled out so as not to find ourselves.
bool names_rust_library(std::string_view constants) {
  constexpr std::string_view kCompiler = "/rustc";
  for (size_t at = constants.find(kCompiler); at != std::string_view::npos;
       at = constants.find(kCompiler, at + 1)) {
    std::string_view rest = constants.substr(at + kCompiler.size(), 64);
    if (rest.empty() || (rest[0] != '/' && rest[0] != '-')) continue;
    rest.remove_prefix(1);
    const size_t version = std::min(rest.find_first_not_of("0123456789abcdef."), rest.size());
    if (version >= 4 && rest.substr(version).starts_with("/library/")) return true;
  }
  return false;
}

bool is_rust(const ElfFile& file) {
  // The compiler's signature is often stripped.
  const auto comment = file.bytes_of(file.find_section(".comment"), kMaxCommentBytes);
  if (comment && comment->find("rustc version") != std::string::npos) return true;
  const auto constants = file.bytes_of(file.find_section(".rodata"), kMaxConstantsBytes);
  return constants && names_rust_library(*constants);
}

}  // namespace

Compiler compiler_of(const ElfFile& file) {
  if (is_go(file)) return Compiler::Go;
  return is_rust(file) ? Compiler::Rust : Compiler::Other;
}

std::optional<std::string> exe_language(FileParser& parser, pid_t pid,
                                        const std::vector<Mapping>& maps) {
  const std::string link = "/proc/" + std::to_string(pid) + "/exe";
  UniqueFd fd(::open(link.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return std::nullopt;
  std::error_code error;
  const std::string name = std::filesystem::read_symlink(link, error).filename();

  if (maps_library(maps, "libjvm.so")) return "java";
  if (name.starts_with("python") || maps_library(maps, "libpython")) return "python";
  if (name == "node" || name == "nodejs" || maps_library(maps, "libnode.so")) return "node";
  const auto compiler = parser.compiler(fd.get());
  if (!compiler) return std::nullopt;
  if (*compiler == Compiler::Go) return "go";
  if (*compiler == Compiler::Rust) return "rust";
  if (maps_library(maps, "libstdc++.so") || maps_library(maps, "libc++.so")) return "c++";
  return "c";
}

}  // namespace lockscope
