#include "record/raw_tables.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <cstring>

namespace lockscope {
namespace {

// Whole table in one batch: room for every entry, so no bucket is ever too
// large for what is left (the kernel would answer ENOSPC).
template <class Key, class Row>
Status read_table(int map, RawTables::Table<Key, Row>& table) {
  bpf_map_info info {};
  __u32 info_size = sizeof info;
  if (bpf_obj_get_info_by_fd(map, &info, &info_size) != 0) {
    return failed(std::string("cannot read a BPF map: ") + std::strerror(errno));
  }
  std::vector<Key> keys(info.max_entries);
  std::vector<Row> rows(info.max_entries);
  __u32 cursor = 0;
  __u32 count = info.max_entries;
  DECLARE_LIBBPF_OPTS(bpf_map_batch_opts, options);
  const int error =
      bpf_map_lookup_batch(map, nullptr, &cursor, keys.data(), rows.data(), &count, &options);
  if (error != 0 && errno != ENOENT) {
    return failed(std::string("cannot read a BPF map: ") + std::strerror(errno));
  }
  table.reserve(count);
  for (__u32 i = 0; i < count; i++) table.emplace_back(keys[i], rows[i]);
  return {};
}

// Summed up over the CPUs.
template <class Cpu, size_t N>
Status read_counters(int map, std::array<uint64_t, N>& counters) {
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) return failed("cannot tell the number of CPUs");
  std::vector<Cpu> values(static_cast<size_t>(cpus));
  const __u32 zero = 0;
  if (bpf_map_lookup_elem(map, &zero, values.data()) != 0) {
    return failed(std::string("cannot read the counters: ") + std::strerror(errno));
  }
  for (const Cpu& cpu : values) {
    for (size_t i = 0; i < N; i++) counters[i] += cpu.counters[i];
  }
  return {};
}

}  // namespace

Result<RawTables::Table<uint32_t, ls_thread>> read_threads(const FutexMaps& maps) {
  RawTables::Table<uint32_t, ls_thread> threads;
  if (Status read = read_table(maps.threads, threads); !read.ok()) return read.error();
  return threads;
}

Result<RawTables> read_tables(const FutexMaps& maps) {
  RawTables tables;
  for (const Status& status :
       {read_table(maps.threads, tables.threads), read_table(maps.locks, tables.locks),
        read_table(maps.waits, tables.waits), read_table(maps.releases, tables.releases),
        read_table(maps.pairs, tables.pairs), read_table(maps.stacks, tables.stacks),
        read_counters<ls_cpu>(maps.cpus, tables.counters)}) {
    if (!status.ok()) return status.error();
  }
  return tables;
}

Result<RawTables::Table<uint32_t, ls_pthread>> read_pthreads(const PthreadMaps& maps) {
  RawTables::Table<uint32_t, ls_pthread> threads;
  if (Status read = read_table(maps.threads, threads); !read.ok()) return read.error();
  return threads;
}

Status read_pthread_tables(const PthreadMaps& maps, RawTables& tables) {
  for (const Status& status :
       {read_table(maps.threads, tables.pthreads), read_table(maps.objects, tables.objects),
        read_table(maps.hold_rows, tables.hold_rows), read_table(maps.orders, tables.orders),
        read_counters<ls_pthread_cpu>(maps.cpus, tables.pthread_counters)}) {
    if (!status.ok()) return status;
  }
  return {};
}

Status read_holder_tables(const HolderMaps& maps, RawTables& tables) {
  for (const Status& status :
       {read_table(maps.holders, tables.holders), read_table(maps.splits, tables.splits),
        read_table(maps.activities, tables.activities)}) {
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace lockscope
