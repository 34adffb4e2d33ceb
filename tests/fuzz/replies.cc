// What a helper in an attacker's hands may answer; the first byte is the question.
#include <cstdlib>

#include "parse/messages.h"

using namespace lockscope;

namespace {

// What was accepted once is accepted as it is written again.
template <class T>
void read(std::string_view bytes) {
  const auto reply = decode_reply<T>(bytes);
  if (reply && reply->ok() && !decode_reply<T>(encode(reply->value()))) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 8) {
    case 0:
      read<CfaTable>(bytes);
      break;
    case 1:
      read<ElfLinks>(bytes);
      break;
    case 2:
      read<uint32_t>(bytes);
      break;
    case 3:
      read<Compiler>(bytes);
      read<ProbePlan>(bytes);
      break;
    case 4:
      read<LoadedSymbols>(bytes);
      break;
    case 5:
      read<std::vector<Names>>(bytes);
      break;
    case 6:
      read<std::vector<NamedObject>>(bytes);
      break;
    case 7:
      (void)decode_request(bytes);
      break;
  }
  return 0;
}
