// Unwind tables from an ELF file: .eh_frame, .debug_frame, .eh_frame_hdr.
#include <cstdlib>

#include "parse/messages.h"
#include "unwind/byte_source.h"
#include "unwind/cfa_table.h"

using namespace lockscope;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto table = build_cfa_table(ByteSource::of_memory({data, size}));
  // What is built is well-formed: the agent would refuse anything else.
  if (table && !decode_reply<CfaTable>(encode(*table))) std::abort();
  return 0;
}
