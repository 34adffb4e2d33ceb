#include "probe/bpf_support.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <thread>

#include "base/fd.h"

namespace lockscope {
namespace {

int log_libbpf(libbpf_print_level level, const char* format, va_list arguments) {
  if (level != LIBBPF_WARN || !spdlog::should_log(spdlog::level::debug)) return 0;
  char line[1024];
  const int size = std::vsnprintf(line, sizeof line, format, arguments);
  std::string_view text(line, std::min<size_t>(static_cast<size_t>(std::max(size, 0)), sizeof line - 1));
  while (text.ends_with('\n')) text.remove_suffix(1);
  spdlog::debug("{}", text);
  return size;
}

}  // namespace

Status prepare_bpf() {
  libbpf_set_print(log_libbpf);
  if (::geteuid() != 0) {
    return unsupported("tracing needs root (CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN): run with sudo");
  }
  if (::access("/sys/kernel/btf/vmlinux", R_OK) != 0) {
    return unsupported(
        "this kernel has no BTF (/sys/kernel/btf/vmlinux): needs CONFIG_DEBUG_INFO_BTF");
  }
  return {};
}

void LinkDeleter::operator()(bpf_link* link) const { bpf_link__destroy(link); }

void take_down(std::vector<Link>& links) {
  std::vector<std::jthread> threads;
  for (Link& link : links) threads.emplace_back([&link] { link.reset(); });
}

Status share_maps(bpf_object* ours, bpf_object* theirs) {
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, ours) {
    const bpf_map* shared = bpf_object__find_map_by_name(theirs, bpf_map__name(map));
    if (shared == nullptr || bpf_map__is_internal(map)) continue;
    if (bpf_map__reuse_fd(map, bpf_map__fd(shared)) != 0) {
      return failed(std::string("cannot share map ") + bpf_map__name(map));
    }
  }
  return {};
}

uint64_t run_time_ns(bpf_object* object) {
  uint64_t total = 0;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object) {
    bpf_prog_info info {};
    __u32 size = sizeof info;
    if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size) == 0) {
      total += info.run_time_ns;
    }
  }
  return total;
}

Result<std::string> run_task_iterator(int link_fd) {
  UniqueFd iterator(bpf_iter_create(link_fd));
  if (!iterator) {
    return failed(std::string("cannot run the task iterator: ") + std::strerror(errno));
  }
  std::string bytes;
  char buffer[32 << 10];
  while (true) {
    const ssize_t size = ::read(iterator.get(), buffer, sizeof buffer);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (size < 0) return failed(std::string("the task iterator failed: ") + std::strerror(errno));
    if (size == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(size));
  }
}

}  // namespace lockscope
