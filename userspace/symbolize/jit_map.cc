#include "symbolize/jit_map.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "base/file_status.h"
#include "process/maps.h"
#include "symbolize/debug_file.h"

namespace lockscope {
namespace {

// A large Node service writes some ten MB.
constexpr int64_t kMaxMapBytes = 64 << 20;

struct Identity {
  pid_t pid_inside = 0;  // in its innermost pid namespace
  uid_t uid = 0;         // effective
};

// The last number of a line such as "NSpid:\t4711\t1", or the second of "Uid:".
std::optional<uint32_t> number_in(std::string_view status, std::string_view key, int column) {
  const size_t at = status.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view line = status.substr(at + key.size());
  line = line.substr(0, line.find('\n'));
  std::optional<uint32_t> found;
  for (int i = 0; column < 0 || i <= column; ++i) {
    const size_t digit = line.find_first_of("0123456789");
    if (digit == std::string_view::npos) break;
    line.remove_prefix(digit);
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
    if (error != std::errc{}) return std::nullopt;
    line.remove_prefix(static_cast<size_t>(end - line.data()));
    found = value;
  }
  return found;
}

std::optional<Identity> identity_of(pid_t pid) {
  const auto status = read_file("/proc/" + std::to_string(pid) + "/status");
  if (!status) return std::nullopt;
  const auto inside = number_in(*status, "\nNSpid:", -1);
  const auto uid = number_in(*status, "\nUid:", 1);
  if (!inside || !uid) return std::nullopt;
  return Identity{static_cast<pid_t>(*inside), *uid};
}

}  // namespace

std::optional<UniqueFd> open_jit_map(pid_t pid, JitMapStamp* stamp) {
  const auto identity = identity_of(pid);
  if (!identity) return std::nullopt;
  auto fd = open_in_root("/proc/" + std::to_string(pid) + "/root",
                         "/tmp/perf-" + std::to_string(identity->pid_inside) + ".map");
  struct stat st;
  // /tmp is everybody's: another user must not name this one's functions.
  if (!fd || ::fstat(fd->get(), &st) != 0 || (st.st_uid != identity->uid && st.st_uid != 0)) {
    return std::nullopt;
  }
  const JitMapStamp now{st.st_size, st.st_mtim.tv_sec * 1'000'000'000 + st.st_mtim.tv_nsec,
                        st.st_ino};
  if (now == *stamp) return std::nullopt;
  *stamp = now;
  return std::move(*fd);
}

JitMap JitMap::read(int fd) {
  struct stat st;
  if (file_status(fd, &st) != 0 || st.st_size > kMaxMapBytes) return {};
  std::string text(static_cast<size_t>(st.st_size), '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t n = ::pread(fd, text.data() + size, text.size() - size, static_cast<off_t>(size));
    if (n <= 0) break;
    size += static_cast<size_t>(n);
  }
  return parse(std::string_view(text).substr(0, size));
}

JitMap JitMap::parse(std::string_view text) {
  struct Function {
    uint64_t size;
    std::string_view name;
  };
  std::map<uint64_t, Function> functions;  // by start; they do not overlap
  while (!text.empty() && functions.size() < SymbolTableBuilder::kMaxSymbols) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));

    uint64_t numbers[2];
    bool good = true;
    for (uint64_t& number : numbers) {
      if (line.starts_with("0x")) line.remove_prefix(2);
      const auto [stop, error] =
          std::from_chars(line.data(), line.data() + line.size(), number, 16);
      good = good && error == std::errc{} && stop != line.data() + line.size() && *stop == ' ';
      if (!good) break;
      line.remove_prefix(static_cast<size_t>(stop - line.data()) + 1);
    }
    const auto [start, size] = numbers;
    if (!good || size == 0 || start > UINT64_MAX - size || line.empty()) continue;

    auto next = functions.lower_bound(start);
    if (next != functions.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second.size > start) functions.erase(before);
    }
    while (next != functions.end() && next->first < start + size) next = functions.erase(next);
    functions.emplace(start, Function{size, line});
  }

  SymbolTableBuilder builder;
  for (const auto& [start, function] : functions) {
    builder.add(function.name, start, function.size, 0, 0);
  }
  JitMap map;
  map.table_ = builder.build();
  return map;
}

}  // namespace lockscope
