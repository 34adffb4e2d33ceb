#include "unwind/process_tables.h"

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>
#include <utility>

#include "unwind/jit_code.h"

namespace lockscope {
namespace {

using namespace std::chrono_literals;

constexpr auto kFirstBackoff = 100ms;
constexpr auto kLastBackoff = 10s;
constexpr auto kSweepInterval = 5s;
constexpr size_t kRequestsPerPoll = 64;

/// mm->start_stack: field 28 of /proc/PID/stat (proc(5)). It changes with every
/// exec, as the kernel randomizes it.
Result<uint64_t> read_start_stack(pid_t tgid) {
  auto text = read_file("/proc/" + std::to_string(tgid) + "/stat");
  if (!text) return text.error();
  // The name, field 2, is in parentheses and may hold any character.
  size_t at = text->rfind(')');
  for (int field = 2; field < 28 && at != text->npos; ++field) at = text->find(' ', at + 1);
  uint64_t value = 0;
  if (at != text->npos)
    std::from_chars(text->data() + at + 1, text->data() + text->size(), value);
  return value;
}

/// mm->exec_vm as the kernel counts it (is_exec_mapping(), mm/internal.h): pages
/// that can be executed and not written. 0 for a process that makes code: with
/// W^X it changes that all the time, and where nothing has a table.
uint64_t count_exec_pages(const std::vector<Mapping>& maps) {
  uint64_t bytes = 0;
  for (const Mapping& mapping : maps) {
    if (!mapping.executable || mapping.writable || mapping.path == "[vsyscall]") continue;
    if (!mapping.has_file() && !mapping.path.starts_with('[')) return 0;
    bytes += mapping.end - mapping.start;
  }
  return bytes / 4096;
}

bool same(const ls_unwind_mapping& a, const ls_unwind_mapping& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

}  // namespace

ProcessTables::ProcessTables(UnwindMemory& memory, BuildTable build, uint32_t max_megabytes)
    : pool_(memory, max_megabytes),
      store_(pool_, std::move(build), [this](const StoredTable& table) { forget_table(table); }) {}

Status ProcessTables::scan(pid_t tgid, bool doubted) {
  Process fresh;
  // An exec in between would pair the old program's mappings with the new one.
  for (int attempt = 0; attempt < 3; ++attempt) {
    auto before = read_start_stack(tgid);
    if (!before) return before.error();
    auto maps = read_maps(tgid);
    if (!maps) return maps.error();
    store_.new_round();
    collect(tgid, *maps, fresh);
    fresh.exec_pages = count_exec_pages(*maps);
    auto after = read_start_stack(tgid);
    if (!after) return after.error();
    fresh.start_stack = *after;
    if (*before == *after) break;
  }
  if (fresh.mappings.empty()) {
    remove_process(tgid);
    return failed("process " + std::to_string(tgid) + " has no code (a kernel thread?)");
  }

  Process& known = processes_[tgid];
  // This kernel counts otherwise than we do. (Or code came and went; then the
  // check is off until the next change.)
  if (doubted && known.start_stack == fresh.start_stack && known.exec_pages == fresh.exec_pages)
    fresh.exec_pages = 0;
  const bool unchanged = known.start_stack == fresh.start_stack &&
                         known.exec_pages == fresh.exec_pages &&
                         std::equal(known.mappings.begin(), known.mappings.end(),
                                    fresh.mappings.begin(), fresh.mappings.end(), same);
  fresh.backoff = unchanged ? std::min<Clock::duration>(known.backoff * 2, kLastBackoff)
                            : Clock::duration(kFirstBackoff);
  fresh.next_scan = Clock::now() + fresh.backoff;
  Status status;
  if (unchanged) {
    known.backoff = fresh.backoff;
    known.next_scan = fresh.next_scan;
  } else {
    const PoolExtent old = known.extent;
    status = publish(tgid, fresh);
    if (status) {
      fresh.published = Clock::now();
      known = std::move(fresh);
      if (old.words) pool_.free(old);
    } else {
      remove_process(tgid);
    }
  }
  pool_.memory().release();
  return status;
}

void ProcessTables::collect(pid_t tgid, const std::vector<Mapping>& maps, Process& process) {
  process.mappings.clear();
  process.tables.clear();
  const uint32_t made_code = keeps_frame_pointers(tgid, maps) ? LS_UNWIND_KEEPS_FP : 0;
  for (const Mapping& mapping : maps) {
    if (!mapping.executable || mapping.path == "[vsyscall]") continue;
    ls_unwind_mapping entry{mapping.start, mapping.end, mapping.start, 0, 0};
    const StoredTable* table = nullptr;
    if (auto found = table_of(tgid, mapping)) table = *found;
    if (table) {
      for (const auto& segment : table->segments) {
        if (mapping.file_offset < segment.file_offset ||
            mapping.file_offset - segment.file_offset >= segment.size)
          continue;
        entry.bias = mapping.start - (mapping.file_offset - segment.file_offset);
        entry.directory = segment.directory;
        entry.n_pages = segment.n_pages;
        break;
      }
    }
    if (entry.n_pages == 0) {
      table = nullptr;
      if (mapping.has_file()) {
        ++without_table_;
      } else {
        entry.directory = made_code;
      }
    }
    // Neighbours are one where a table, or its lack, goes on: mprotect splits
    // mappings, and runtimes make code in many small ones.
    if (!process.mappings.empty()) {
      ls_unwind_mapping& last = process.mappings.back();
      const bool goes_on = process.tables.back() == table && last.end == entry.start &&
                           last.directory == entry.directory &&
                           (!table || last.bias == entry.bias);
      if (goes_on) {
        last.end = entry.end;
        continue;
      }
    }
    if (process.mappings.size() == LS_UNWIND_MAX_MAPPINGS) {
      ++dropped_;
      continue;
    }
    process.mappings.push_back(entry);
    process.tables.push_back(table);
  }
}

Result<const StoredTable*> ProcessTables::table_of(pid_t tgid, const Mapping& mapping) {
  if (mapping.path == "[vdso]") return store_.of_vdso();
  if (!mapping.has_file()) return failed("no file");
  auto fd = open_mapped_file(tgid, mapping);
  if (!fd) return fd.error();
  return store_.of_file(fd->get());
}

Status ProcessTables::publish(pid_t tgid, Process& process) {
  const size_t bytes = process.mappings.size() * sizeof(ls_unwind_mapping);
  auto extent = pool_.allocate(static_cast<uint32_t>(bytes / 4));
  if (!extent) return extent.error();
  process.extent = *extent;
  uint32_t* words = pool_.words(*extent);
  Status status = failed("cannot map the unwind tables");
  if (words) {
    std::memcpy(words, process.mappings.data(), bytes);
    // The kernel must not see the entry before what it points to.
    std::atomic_thread_fence(std::memory_order_release);
    status = pool_.memory().set_process(
        tgid, {process.start_stack, process.exec_pages, extent->index,
               static_cast<uint32_t>(process.mappings.size())});
  }
  if (!status) pool_.free(*extent);
  return status;
}

void ProcessTables::remove_process(pid_t tgid) {
  const auto found = processes_.find(tgid);
  if (found == processes_.end()) return;
  pool_.memory().erase_process(tgid);
  if (found->second.extent.words) pool_.free(found->second.extent);
  processes_.erase(found);
}

void ProcessTables::forget_table(const StoredTable& table) {
  for (auto& [tgid, process] : processes_) {
    for (size_t i = 0; i < process.tables.size(); ++i) {
      if (process.tables[i] != &table) continue;
      process.tables[i] = nullptr;
      process.mappings[i].n_pages = 0;
      // In place: one aligned word, and the rows stay until the grace period
      // is over.
      uint32_t* words = pool_.words(process.extent);
      if (words) reinterpret_cast<ls_unwind_mapping*>(words)[i].n_pages = 0;
    }
  }
}

void ProcessTables::poll(KernelUnwindMemory& kernel) {
  const auto now = Clock::now();
  for (const auto& request : kernel.requests(kRequestsPerPoll)) {
    const auto known = processes_.find(request.tgid);
    // Left in place, the request keeps the kernel from asking again.
    if (known != processes_.end() && now < known->second.next_scan) continue;
    // Since what we published last: not of what has been mended since it asked.
    const bool doubted =
        known != processes_.end() && request.what.address == 0 &&
        Clock::time_point(std::chrono::nanoseconds(request.what.asked_ns)) > known->second.published;
    if (!scan(request.tgid, doubted)) remove_process(request.tgid);
    kernel.forget_request(request.tgid);
  }
  if (now < next_sweep_) return;
  next_sweep_ = now + kSweepInterval;
  sweep();
  pool_.reclaim();
  pool_.memory().release();
}

void ProcessTables::sweep() {
  std::vector<pid_t> gone;
  for (const auto& [tgid, process] : processes_)
    if (::kill(tgid, 0) != 0 && errno == ESRCH) gone.push_back(tgid);
  for (const pid_t tgid : gone) remove_process(tgid);
}

ProcessTables::Stats ProcessTables::stats() const {
  return {.processes = processes_.size(),
          .files = store_.files(),
          .tables = store_.tables(),
          .rules = pool_.rules(),
          .pool_bytes = pool_.total_bytes(),
          .used_bytes = pool_.used_bytes(),
          .tables_evicted = store_.evicted(),
          .tables_refused = store_.refused(),
          .mappings_without_table = without_table_,
          .mappings_dropped = dropped_};
}

}  // namespace lockscope
