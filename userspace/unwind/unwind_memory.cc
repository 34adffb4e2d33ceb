#include "unwind/unwind_memory.h"

#include <bpf/bpf.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace lockscope {
namespace {

constexpr size_t kRulesBytes = LS_UNWIND_MAX_RULES * sizeof(ls_unwind_rule);

void* map_words(int fd, size_t bytes) {
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return at == MAP_FAILED ? nullptr : at;
}

}  // namespace

Status LocalUnwindMemory::add_segment() {
  if (segments_.size() >= LS_POOL_MAX_SEGMENTS) return failed("unwind tables are full");
  segments_.emplace_back(LS_POOL_SEGMENT_WORDS);
  return {};
}

uint32_t* LocalUnwindMemory::segment(uint32_t index) {
  return index < segments_.size() ? segments_[index].data() : nullptr;
}

Status LocalUnwindMemory::set_process(pid_t tgid, const ls_unwind_process& process) {
  processes_[tgid] = process;
  return {};
}

void LocalUnwindMemory::erase_process(pid_t tgid) { processes_.erase(tgid); }

std::optional<ls_unwind_process> LocalUnwindMemory::find_process(pid_t tgid) const {
  const auto found = processes_.find(tgid);
  if (found == processes_.end()) return {};
  return found->second;
}

KernelUnwindMemory::~KernelUnwindMemory() { KernelUnwindMemory::release(); }

Status KernelUnwindMemory::add_segment() {
  const uint32_t index = segments();
  if (index >= LS_POOL_MAX_SEGMENTS) return failed("unwind tables are full");
  // As struct ls_unwind_pool_segment in bpf/unwind.bpf.h: the kernel refuses
  // inner maps that differ.
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
  UniqueFd fd(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "ls_unwind_seg", sizeof(uint32_t),
                               LS_POOL_SEGMENT_BYTES, 1, &options));
  if (!fd) return failed(std::string("no memory for unwind tables: ") + std::strerror(errno));
  const int inner = fd.get();
  if (::bpf_map_update_elem(maps_.ls_unwind_pool, &index, &inner, BPF_ANY) != 0)
    return failed(std::string("cannot add to the unwind tables: ") + std::strerror(errno));
  segments_.push_back({std::move(fd)});
  return {};
}

uint32_t* KernelUnwindMemory::segment(uint32_t index) {
  if (index >= segments_.size()) return nullptr;
  Segment& segment = segments_[index];
  if (!segment.words)
    segment.words = static_cast<uint32_t*>(map_words(segment.fd.get(), LS_POOL_SEGMENT_BYTES));
  return segment.words;
}

ls_unwind_rule* KernelUnwindMemory::rules() {
  if (!rules_) rules_ = static_cast<ls_unwind_rule*>(map_words(maps_.ls_unwind_rules, kRulesBytes));
  return rules_;
}

void KernelUnwindMemory::release() {
  for (Segment& segment : segments_) {
    if (segment.words) ::munmap(segment.words, LS_POOL_SEGMENT_BYTES);
    segment.words = nullptr;
  }
  if (rules_) ::munmap(rules_, kRulesBytes);
  rules_ = nullptr;
}

Status KernelUnwindMemory::set_process(pid_t tgid, const ls_unwind_process& process) {
  if (::bpf_map_update_elem(maps_.ls_unwind_processes, &tgid, &process, BPF_ANY) == 0) return {};
  return failed(std::string("cannot add a process to the unwind tables: ") + std::strerror(errno));
}

void KernelUnwindMemory::erase_process(pid_t tgid) {
  ::bpf_map_delete_elem(maps_.ls_unwind_processes, &tgid);
}

std::optional<ls_unwind_process> KernelUnwindMemory::find_process(pid_t tgid) const {
  ls_unwind_process process{};
  if (::bpf_map_lookup_elem(maps_.ls_unwind_processes, &tgid, &process) != 0) return {};
  return process;
}

void KernelUnwindMemory::wait_for_walks() {
  if (segments_.empty()) return;
  // An update of a map of maps from user space returns only after an RCU grace
  // period (1ae80cf31938, "bpf: wait for running BPF programs when updating
  // map-in-map", 5.0). Putting back what is there changes nothing else.
  const uint32_t index = 0;
  const int inner = segments_[0].fd.get();
  ::bpf_map_update_elem(maps_.ls_unwind_pool, &index, &inner, BPF_ANY);
}

std::vector<KernelUnwindMemory::Request> KernelUnwindMemory::requests(size_t limit) const {
  std::vector<Request> found;
  pid_t key = 0;
  const pid_t* previous = nullptr;
  while (found.size() < limit &&
         ::bpf_map_get_next_key(maps_.ls_unwind_requests, previous, &key) == 0) {
    Request request{key};
    if (::bpf_map_lookup_elem(maps_.ls_unwind_requests, &key, &request.what) == 0)
      found.push_back(request);
    previous = &key;
  }
  return found;
}

void KernelUnwindMemory::forget_request(pid_t tgid) {
  ::bpf_map_delete_elem(maps_.ls_unwind_requests, &tgid);
}

}  // namespace lockscope
