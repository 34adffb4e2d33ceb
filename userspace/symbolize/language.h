#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "parse/file_parser.h"
#include "process/maps.h"
#include "symbolize/elf_file.h"

namespace lockscope {

/// What an ELF file was compiled by.
Compiler compiler_of(const ElfFile& file);

/// The language a process is likely written in: "java", "python", "node", "go",
/// "rust", "c++" or "c"; nothing when its program can't be read (it has ended,
/// or is a kernel thread). A hint for reports, from what is mapped and from the
/// traces that compilers leave.
std::optional<std::string> exe_language(FileParser& parser, pid_t pid,
                                        const std::vector<Mapping>& maps);

}  // namespace lockscope
