// A saved capture from anywhere, and everything that is made of it. Inputs are
// JSON, packed here, or else anything, as it is.
#include "capture/capture_file.h"

#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include <string>

#include "base/fd.h"
#include "diagnose/diagnosis.h"
#include "report/diagnosis_text.h"

using namespace lockscope;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string content(reinterpret_cast<const char*>(data), size);
  if (content.starts_with('{')) {
    std::string packed(ZSTD_compressBound(size), '\0');
    packed.resize(ZSTD_compress(packed.data(), packed.size(), data, size, 1));
    content = std::move(packed);
  }
  const UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  if (::write(fd.get(), content.data(), content.size()) < 0) return 0;
  auto capture = load_capture("/proc/self/fd/" + std::to_string(fd.get()));
  if (!capture) return 0;
  diagnosis_text(diagnose(std::move(*capture)));
  return 0;
}
