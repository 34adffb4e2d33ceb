#pragma once

#include <string>

#include "base/result.h"
#include "capture/capture.h"

namespace lockscope {

/// A capture file is a zstd frame, with a checksum, around one JSON document
/// ("schema": "lockscope.capture/1"), so that `zstdcat FILE | jq .` shows it.
/// Names that were found at recording time are in it: it reads the same on a
/// machine that has none of the traced binaries.

/// Writes the file whole or not at all. Errors: as of open(2), write(2).
Status save_capture(const SymbolizedCapture& capture, const std::string& path);

/// Reads a file that save_capture() wrote. The content is not trusted: anything
/// that is not a whole, consistent capture is an Error that says so.
Result<SymbolizedCapture> load_capture(const std::string& path);

/// Writes `text` to `path` by way of a temporary file beside it, so that a
/// reader never sees half of it; to a pipe or device directly. "-" is stdout.
Status write_output(const std::string& path, const std::string& text);

}  // namespace lockscope
