#pragma once

#include <cstdint>
#include <optional>

#include "parse/file_parser.h"
#include "symbolize/elf_file.h"

namespace lockscope {

/// What a file says of others that belong to it.
ElfLinks read_links(const ElfFile& file);

/// CRC-32 of the whole file, about 1 GB/s; nothing above 512 MiB.
std::optional<uint32_t> file_checksum(const ElfFile& file);

}  // namespace lockscope
