#include "probe/uprobe.h"

#include <bpf/libbpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace lockscope {
namespace {

// include/uapi/linux/bpf.h since 6.6, which is newer than what we are built with.
constexpr int kBpfLinkCreate = 28;
constexpr uint32_t kBpfTraceUprobeMulti = 48;

struct LinkCreateUprobeMulti {
  uint32_t prog_fd;
  uint32_t target_fd;
  uint32_t attach_type;
  uint32_t flags;
  uint64_t path;
  uint64_t offsets;
  uint64_t ref_ctr_offsets;
  uint64_t cookies;
  uint32_t cnt;
  uint32_t uprobe_flags;
  uint32_t pid;
  uint32_t padding;
};

}  // namespace

void Uprobes::Deleter::operator()(bpf_link* link) const { bpf_link__destroy(link); }

void prepare_for_multi(bpf_program* program) {
  bpf_program__set_expected_attach_type(program, static_cast<bpf_attach_type>(kBpfTraceUprobeMulti));
}

Result<Uprobes> Uprobes::attach_multi(int program, pid_t pid, const std::string& path,
                                      std::span<const UprobePoint> points) {
  std::vector<uint64_t> offsets, cookies;
  for (const UprobePoint& point : points) {
    offsets.push_back(point.file_offset);
    cookies.push_back(point.cookie);
  }
  LinkCreateUprobeMulti create{};
  create.prog_fd = static_cast<uint32_t>(program);
  create.attach_type = kBpfTraceUprobeMulti;
  create.path = reinterpret_cast<uint64_t>(path.c_str());
  create.offsets = reinterpret_cast<uint64_t>(offsets.data());
  create.cookies = reinterpret_cast<uint64_t>(cookies.data());
  create.cnt = static_cast<uint32_t>(points.size());
  create.pid = static_cast<uint32_t>(pid);
  Uprobes probes;
  probes.multi_ = UniqueFd(static_cast<int>(
      ::syscall(SYS_bpf, kBpfLinkCreate, &create, sizeof create)));
  if (!probes.multi_) return unsupported(std::string("cannot place uprobes: ") + std::strerror(errno));
  return probes;
}

Result<Uprobes> Uprobes::attach_each(bpf_program* program, pid_t pid, const std::string& path,
                                     std::span<const UprobePoint> points, bool with_cookies) {
  Uprobes probes;
  for (const UprobePoint& point : points) {
    DECLARE_LIBBPF_OPTS(bpf_uprobe_opts, options);
    if (with_cookies) options.bpf_cookie = point.cookie;
    std::unique_ptr<bpf_link, Deleter> link(
        bpf_program__attach_uprobe_opts(program, pid, path.c_str(), point.file_offset, &options));
    if (!link) return unsupported(std::string("cannot place a uprobe: ") + std::strerror(errno));
    probes.links_.push_back(std::move(link));
  }
  return probes;
}

}  // namespace lockscope
