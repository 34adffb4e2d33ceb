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

// Adds the mappings that are new: those that went away meanwhile may still
// stand on stacks taken before.
void merge_mappings(std::vector<Mapping>& known, std::vector<Mapping> now) {
  std::erase_if(now, [](const Mapping& mapping) { return !mapping.executable; });
  for (const Mapping& old : known) {
    const bool overlaps = std::any_of(now.begin(), now.end(), [&](const Mapping& mapping) {
      return mapping.start < old.end && old.start < mapping.end;
    });
    if (!overlaps) now.push_back(old);
  }
  std::sort(now.begin(), now.end(),
            [](const Mapping& a, const Mapping& b) { return a.start < b.start; });
  known = std::move(now);
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
  char exe[4096];
  const ssize_t size = ::readlink((proc + "/exe").c_str(), exe, sizeof exe);
  if (size > 0) process.exe.assign(exe, static_cast<size_t>(size));
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

void ProcessTable::refresh() {
  for (const auto& [pid, holder] : holders_) {
    if (process_start_ticks(pid) != holder.start_ticks) continue;
    Process& process = processes_[holder.process];
    const size_t mappings = process.mappings.size();
    if (read_process(pid, process) && process.mappings.size() != mappings) {
      symbolizer_.preload(pid, process.mappings);
    }
  }
}

}  // namespace lockscope
