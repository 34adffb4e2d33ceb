#include "record/process_info.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "symbolize/language.h"

namespace lockscope {
namespace {

uint32_t count_threads(pid_t pid) {
  DIR* directory = ::opendir(("/proc/" + std::to_string(pid) + "/task").c_str());
  if (directory == nullptr) return 0;
  uint32_t threads = 0;
  while (const dirent* entry = ::readdir(directory)) threads += entry->d_name[0] != '.';
  ::closedir(directory);
  return threads;
}

// Its file is not the one that earlier stacks may have met in its place.
constexpr const char* kReplaced = "[replaced]";

bool same_code(const Mapping& a, const Mapping& b) {
  return a.inode == b.inode && a.dev_major == b.dev_major && a.dev_minor == b.dev_minor &&
         a.start - a.file_offset == b.start - b.file_offset;
}

// Adds the mappings that are new: those that went away meanwhile may still
// stand on stacks taken before. Where one took the place of another no name is
// certain: there are to be none.
void merge_mappings(std::vector<Mapping>& known, std::vector<Mapping> now) {
  std::erase_if(now, [](const Mapping& mapping) { return !mapping.executable; });
  for (const Mapping& old : known) {
    bool overlaps = false;
    for (Mapping& mapping : now) {
      if (mapping.start >= old.end || old.start >= mapping.end) continue;
      overlaps = true;
      const bool another = mapping.has_file() && old.has_file() && !same_code(mapping, old);
      if (!another && old.path != kReplaced) continue;
      mapping.path = kReplaced;
      mapping.inode = 0;
    }
    if (!overlaps) now.push_back(old);
  }
  std::sort(now.begin(), now.end(),
            [](const Mapping& a, const Mapping& b) { return a.start < b.start; });
  known = std::move(now);
}

std::string read_exe(pid_t pid) {
  char exe[4096];
  const ssize_t size =
      ::readlink(("/proc/" + std::to_string(pid) + "/exe").c_str(), exe, sizeof exe);
  return size > 0 ? std::string(exe, static_cast<size_t>(size)) : "";
}

// Field 22 of /proc/PID/stat; 0 when there is no such process.
uint64_t process_start_ticks(pid_t pid) {
  auto stat = read_file("/proc/" + std::to_string(pid) + "/stat");
  if (!stat) return 0;
  // The second field, the name in parentheses, may hold spaces.
  size_t at = stat->rfind(')');
  for (int field = 2; field < 22 && at != std::string::npos; field++) at = stat->find(' ', at + 1);
  return at == std::string::npos ? 0 : std::strtoull(stat->c_str() + at, nullptr, 10);
}

}  // namespace

bool ProcessTable::read_process(pid_t pid, Process& process) {
  auto maps = read_maps(pid);
  if (!maps || maps->empty()) return false;
  const std::string proc = "/proc/" + std::to_string(pid);
  if (auto comm = read_file(proc + "/comm")) {
    while (comm->ends_with('\n')) comm->pop_back();
    process.comm = *comm;
  }
  if (std::string exe = read_exe(pid); !exe.empty()) process.exe = std::move(exe);
  if (process.language.empty()) process.language = exe_language(parser_, pid, *maps).value_or("");
  process.threads = std::max(process.threads, count_threads(pid));
  merge_mappings(process.mappings, std::move(*maps));
  return true;
}

void ProcessTable::meet(uint64_t id, const std::function<void()>& meanwhile) {
  Process process;
  process.id = id;
  process.pid = static_cast<pid_t>(LS_PROCESS_TGID(id));
  const uint64_t start_ticks = process_start_ticks(process.pid);
  if (start_ticks == 0 || !read_process(process.pid, process)) return;
  for (const Mapping& mapping : process.mappings) {
    meanwhile();
    symbolizer_.preload(process.pid, {mapping});
  }
  holders_[process.pid] = {id, start_ticks};
  processes_[id] = std::move(process);
}

void ProcessTable::refresh(pid_t pid, const std::function<void()>& meanwhile) {
  const auto holder = holders_.find(pid);
  if (holder == holders_.end() || process_start_ticks(pid) != holder->second.start_ticks) return;
  Process& process = processes_[holder->second.process];
  // After exec it is another process, which has yet to be met.
  if (read_exe(pid) != process.exe) return;
  const std::vector<Mapping> before = process.mappings;
  if (!read_process(pid, process)) return;
  for (const Mapping& mapping : process.mappings) {
    const auto known = std::find_if(before.begin(), before.end(), [&](const Mapping& old) {
      return old.start == mapping.start && old.end == mapping.end && same_code(old, mapping);
    });
    if (known != before.end()) continue;
    meanwhile();
    symbolizer_.preload(pid, {mapping});
  }
}

void ProcessTable::refresh() {
  std::vector<pid_t> pids;
  for (const auto& [pid, holder] : holders_) pids.push_back(pid);
  for (const pid_t pid : pids) refresh(pid, [] {});
}

}  // namespace lockscope
