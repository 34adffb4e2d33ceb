#include "symbolize/mini_debug_info.h"

#include <lzma.h>

namespace lockscope {
namespace {

constexpr uint64_t kMaxCompressedBytes = 16 << 20;
constexpr size_t kMaxBytes = 64 << 20;  // a few MB for the largest programs
constexpr uint64_t kMaxDecoderBytes = 64 << 20;
constexpr size_t kGrowBytes = 1 << 20;

}  // namespace

std::optional<ElfFile> read_mini_debug_info(const ElfFile& file) {
  const auto packed = file.bytes_of(file.find_section(".gnu_debugdata"), kMaxCompressedBytes);
  if (!packed) return std::nullopt;
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&stream, kMaxDecoderBytes, 0) != LZMA_OK) return std::nullopt;
  stream.next_in = reinterpret_cast<const uint8_t*>(packed->data());
  stream.avail_in = packed->size();

  std::string image;
  lzma_ret status = LZMA_OK;
  // In steps: a few packed bytes may unpack to gigabytes.
  while (status == LZMA_OK && image.size() < kMaxBytes) {
    const size_t done = image.size();
    image.resize(done + kGrowBytes);
    stream.next_out = reinterpret_cast<uint8_t*>(image.data() + done);
    stream.avail_out = kGrowBytes;
    status = lzma_code(&stream, LZMA_FINISH);
    image.resize(image.size() - stream.avail_out);
  }
  lzma_end(&stream);
  if (status != LZMA_STREAM_END) return std::nullopt;
  auto inner = ElfFile::from_memory(std::move(image));
  if (!inner) return std::nullopt;
  return std::move(*inner);
}

}  // namespace lockscope
