#include "symbolize/debuginfod.h"

#include <dlfcn.h>
#include <elfutils/debuginfod.h>
#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

namespace lockscope {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kMaxTime{60};
constexpr long kMaxBytes = 512 << 20;  // libc: 5 MB

/// The library, loaded only when it is wanted: it brings curl and 25 more.
struct Library {
  decltype(&debuginfod_begin) begin = nullptr;
  decltype(&debuginfod_end) end = nullptr;
  decltype(&debuginfod_find_debuginfo) find_debuginfo = nullptr;
  decltype(&debuginfod_set_progressfn) set_progressfn = nullptr;
  decltype(&debuginfod_set_user_data) set_user_data = nullptr;
  decltype(&debuginfod_get_user_data) get_user_data = nullptr;

  bool load() {
    void* handle = ::dlopen(DEBUGINFOD_SONAME, RTLD_NOW);
    const auto get = [handle](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(
          handle ? ::dlsym(handle, name) : nullptr);
      return function != nullptr;
    };
    return get(begin, "debuginfod_begin") && get(end, "debuginfod_end") &&
           get(find_debuginfo, "debuginfod_find_debuginfo") &&
           get(set_progressfn, "debuginfod_set_progressfn") &&
           get(set_user_data, "debuginfod_set_user_data") &&
           get(get_user_data, "debuginfod_get_user_data");
  }
};

Library library;

class Client {
 public:
  Client() : client_(library.begin()) {
    if (!client_) return;
    library.set_user_data(client_, this);
    library.set_progressfn(client_, on_progress);
  }
  ~Client() {
    if (client_) library.end(client_);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  UniqueFd fetch(const std::string& build_id) {
    if (!client_ || given_up_) return UniqueFd();
    began_ = Clock::now();
    const int got = library.find_debuginfo(
        client_, reinterpret_cast<const unsigned char*>(build_id.c_str()), 0, nullptr);
    spent_ += Clock::now() - began_;
    if (got == -ENOENT) return UniqueFd();
    if (got < 0) {
      given_up_ = true;
      spdlog::warn("debuginfod: {}; going on without", exceeded_ ? exceeded_ : std::strerror(-got));
      return UniqueFd();
    }
    // What has just been downloaded is still open for writing.
    const UniqueFd file(got);
    return UniqueFd(::open(("/proc/self/fd/" + std::to_string(got)).c_str(), O_RDONLY | O_CLOEXEC));
  }

 private:
  // Called at least once a second while something is under way; `done` and
  // `size` are in bytes once a transfer has begun. Not 0: give up.
  static int on_progress(debuginfod_client* client, long done, long size) {
    auto* self = static_cast<Client*>(library.get_user_data(client));
    if (!std::exchange(self->said_, true)) {
      spdlog::info("asking debuginfod servers for debug files");
    }
    if (self->spent_ + (Clock::now() - self->began_) > kMaxTime) self->exceeded_ = "takes too long";
    if (std::max(done, size) > kMaxBytes) self->exceeded_ = "a debug file is too large";
    return self->exceeded_ != nullptr;
  }

  debuginfod_client* client_;
  Clock::time_point began_;
  Clock::duration spent_{};
  const char* exceeded_ = nullptr;
  bool said_ = false;
  bool given_up_ = false;
};

}  // namespace

FetchDebugFile debuginfod_client_from_environment() {
  const char* urls = std::getenv(DEBUGINFOD_URLS_ENV_VAR);
  if (!urls || *urls == '\0') return nullptr;
  if (!library.load()) {
    spdlog::warn("{} is set, but {} is not installed", DEBUGINFOD_URLS_ENV_VAR, DEBUGINFOD_SONAME);
    return nullptr;
  }
  return [client = std::make_shared<Client>()](const std::string& build_id) {
    return client->fetch(build_id);
  };
}

}  // namespace lockscope
