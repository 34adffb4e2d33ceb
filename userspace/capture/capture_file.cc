#include "capture/capture_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <zstd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/fd.h"

namespace lockscope {

using nlohmann::json;

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Quality, lost, truncated_stacks, broken_stacks, guessed_stacks,
                                   complete_stacks, unmatched, calls, stacks_taken, events,
                                   sampled_events, pthread_slices, pthread_share, self_cpu_share)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Mapping, start, end, file_offset, inode, dev_major, dev_minor,
                                   deleted, path)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Process, id, pid, comm, exe, language, threads, mappings)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Lock, id, process, shared, address, inode, file_offset, device,
                                   traits, max_waiters, waiter_threads, releaser_threads,
                                   waited_releases, self_releases, refused_holds, unreleased_ns,
                                   area_ns, owner_tid, object, object_offset)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Stack, process, flags, addresses)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Histogram, slots)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Durations, count, total_ns, max_ns, histogram)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(WaitRow, lock, stack, ended, sleeps, timeouts, in_flight,
                                   in_flight_ns, in_flight_max_ns, before_capture)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ReleaseRow, lock, stack, count, blame_ns, hold)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(PairRow, lock, waiter, waker, count, total_ns)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Frame, function, file, line, module, inlined)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(PthreadObject, process, address, kind, hold, read_hold, held,
                                   held_ns, before, contended, failed, waits, signals, broadcasts,
                                   unheld, nobody, posts, taken, spins, spin_ns, count_error,
                                   total_error, mean_error, mutex, object, object_offset)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(HoldRow, object, stack, count, total_ns)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(OrderRow, held, wanted, stack, count, tid)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(HoldSplit, count, held_ns, runnable_ns, blocked_ns)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SplitRow, lock, object, split)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ActivityRow, lock, object, stack, call, count, total_ns)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Capture, host, kernel, target, start_unix_ns, duration_ns, tiers,
                                   quality, processes, locks, stacks, waits, releases, pairs,
                                   objects, holds, orders, splits, activities)

namespace {

constexpr const char* kSchema = "lockscope.capture/1";

// A capture of a busy host is a few MB of JSON; more than this is no capture.
constexpr unsigned long long kMaxJsonBytes = 1ull << 30;

// Names stand once in the file: "frames" lists them, "stack_frames" refers to
// them by index.
json to_json_document(const SymbolizedCapture& capture) {
  std::vector<const Frame*> frames;
  std::unordered_map<std::string, size_t> known;
  json stack_frames = json::array();
  for (const auto& stack : capture.frames) {
    json indices = json::array();
    for (const Frame& frame : stack) {
      const std::string key = frame.function + '\0' + frame.module + '\0' + frame.file + '\0' +
                              std::to_string(frame.line) + (frame.inlined ? "i" : "");
      const auto [entry, is_new] = known.emplace(key, frames.size());
      if (is_new) frames.push_back(&frame);
      indices.push_back(entry->second);
    }
    stack_frames.push_back(std::move(indices));
  }
  json document;
  document["schema"] = kSchema;
  document["capture"] = capture.capture;
  document["frames"] = json::array();
  for (const Frame* frame : frames) document["frames"].push_back(*frame);
  document["stack_frames"] = std::move(stack_frames);
  return document;
}

bool in_range(Index index, size_t size) { return index == kNone || index < size; }

// Every index must point somewhere: all later stages rely on it.
bool consistent(const SymbolizedCapture& symbolized) {
  const Capture& capture = symbolized.capture;
  const size_t stacks = capture.stacks.size();
  const size_t locks = capture.locks.size();
  if (symbolized.frames.size() != stacks) return false;
  for (const Lock& lock : capture.locks) {
    if (!in_range(lock.process, capture.processes.size())) return false;
  }
  for (const Stack& stack : capture.stacks) {
    if (!in_range(stack.process, capture.processes.size())) return false;
  }
  for (const WaitRow& row : capture.waits) {
    if (!in_range(row.lock, locks) || !in_range(row.stack, stacks)) return false;
  }
  for (const ReleaseRow& row : capture.releases) {
    if (!in_range(row.lock, locks) || !in_range(row.stack, stacks)) return false;
  }
  for (const PairRow& row : capture.pairs) {
    if (!in_range(row.lock, locks) || !in_range(row.waiter, stacks) ||
        !in_range(row.waker, stacks))
      return false;
  }
  for (const PthreadObject& object : capture.objects) {
    if (!in_range(object.process, capture.processes.size())) return false;
  }
  const size_t objects = capture.objects.size();
  for (const HoldRow& row : capture.holds) {
    if (!in_range(row.object, objects) || !in_range(row.stack, stacks)) return false;
  }
  for (const OrderRow& row : capture.orders) {
    if (!in_range(row.held, objects) || !in_range(row.wanted, objects) ||
        !in_range(row.stack, stacks))
      return false;
  }
  for (const SplitRow& row : capture.splits) {
    if (!in_range(row.lock, locks) || !in_range(row.object, objects)) return false;
  }
  for (const ActivityRow& row : capture.activities) {
    if (!in_range(row.lock, locks) || !in_range(row.object, objects) || !in_range(row.stack, stacks))
      return false;
  }
  return true;
}

// Captures of before there was a pthread or a holder tier have none of their tables.
constexpr const char* kLaterTables[] = {"objects", "holds", "orders", "splits", "activities"};

Result<SymbolizedCapture> from_json_document(json document, const Error& not_a_capture) {
  try {
    if (document.at("schema") != kSchema) {
      return failed(not_a_capture.message + ": schema " + document.at("schema").dump() +
                    ", this program reads " + kSchema);
    }
    SymbolizedCapture capture;
    json& saved = document.at("capture");
    for (const char* table : kLaterTables) saved.emplace(table, json::array());
    // ... of before there were slices, all was seen.
    saved.at("quality").emplace("pthread_slices", 0);
    saved.at("quality").emplace("pthread_share", 1.0);
    for (json& object : saved.at("objects")) {
      for (const char* error : {"count_error", "total_error", "mean_error"}) object.emplace(error, 0.0);
    }
    capture.capture = saved.get<Capture>();
    const auto frames = document.at("frames").get<std::vector<Frame>>();
    for (const json& indices : document.at("stack_frames")) {
      auto& stack = capture.frames.emplace_back();
      for (const json& index : indices) stack.push_back(frames.at(index.get<size_t>()));
    }
    if (!consistent(capture)) return not_a_capture;
    return capture;
  } catch (const std::exception&) {
    return not_a_capture;
  }
}

Result<std::string> decompress(const std::string& packed, const Error& not_a_capture) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                   ZSTD_freeDCtx);
  std::string text;
  ZSTD_inBuffer in{packed.data(), packed.size(), 0};
  std::vector<char> chunk(ZSTD_DStreamOutSize());
  while (true) {
    ZSTD_outBuffer out{chunk.data(), chunk.size(), 0};
    const size_t left = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(left)) return not_a_capture;
    text.append(chunk.data(), out.pos);
    if (text.size() > kMaxJsonBytes) return not_a_capture;
    if (left == 0) return text;
    if (in.pos == in.size && out.pos < out.size) {
      return failed(not_a_capture.message + ": it is truncated");
    }
  }
}

Status write_all(int fd, const std::string& text, const std::string& path) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed("cannot write " + path + ": " + std::strerror(errno));
    done += static_cast<size_t>(n);
  }
  return {};
}

}  // namespace

Status write_output(const std::string& path, const std::string& text) {
  if (path == "-") return write_all(STDOUT_FILENO, text, "standard output");
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd) return failed("cannot write " + path + ": " + std::strerror(errno));
    return write_all(fd.get(), text, path);
  }
  std::string temporary = path + ".XXXXXX";
  UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return failed("cannot write " + path + ": " + std::strerror(errno));
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::fchmod(fd.get(), 0666 & ~mask);
  Status written = write_all(fd.get(), text, path);
  if (written.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    written = failed("cannot write " + path + ": " + std::strerror(errno));
  }
  if (!written.ok()) ::unlink(temporary.c_str());
  return written;
}

Status save_capture(const SymbolizedCapture& capture, const std::string& path) {
  // Names come from other processes' files: replace what is not UTF-8.
  const std::string text =
      to_json_document(capture).dump(-1, ' ', false, json::error_handler_t::replace);
  const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(),
                                                                   ZSTD_freeCCtx);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  const size_t size =
      ZSTD_compress2(context.get(), packed.data(), packed.size(), text.data(), text.size());
  if (ZSTD_isError(size)) return failed(std::string("cannot compress: ") + ZSTD_getErrorName(size));
  packed.resize(size);
  return write_output(path, packed);
}

Result<SymbolizedCapture> load_capture(const std::string& path) {
  auto packed = read_file(path);
  if (!packed) return packed.error();
  const Error not_a_capture = failed(path + " is not a lockscope capture, or is damaged");
  auto text = decompress(*packed, not_a_capture);
  if (!text) return text.error();
  json document = json::parse(*text, nullptr, false);
  if (document.is_discarded()) return not_a_capture;
  return from_json_document(std::move(document), not_a_capture);
}

}  // namespace lockscope
