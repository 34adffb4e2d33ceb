#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "unwind.h"

namespace lockscope {

/// The memory that the walker reads: the kernel's maps, or our own for walking
/// stacks from user space.
class UnwindMemory {
 public:
  virtual ~UnwindMemory() = default;

  /// Adds a segment of LS_POOL_SEGMENT_WORDS words at the end of the pool.
  virtual Status add_segment() = 0;
  virtual uint32_t segments() const = 0;

  /// The words of a segment, or nullptr. Valid until release().
  virtual uint32_t* segment(uint32_t index) = 0;

  /// LS_UNWIND_MAX_RULES rules, or nullptr. Valid until release().
  virtual ls_unwind_rule* rules() = 0;

  /// Gives back address space that segment() and rules() took.
  virtual void release() {}

  virtual Status set_process(pid_t tgid, const ls_unwind_process& process) = 0;
  virtual void erase_process(pid_t tgid) = 0;
  virtual std::optional<ls_unwind_process> find_process(pid_t tgid) const = 0;

  /// Returns when no walk that began before the call is still under way.
  virtual void wait_for_walks() {}
};

/// In this process's memory.
class LocalUnwindMemory : public UnwindMemory {
 public:
  Status add_segment() override;
  uint32_t segments() const override { return static_cast<uint32_t>(segments_.size()); }
  uint32_t* segment(uint32_t index) override;
  ls_unwind_rule* rules() override { return rules_.data(); }
  Status set_process(pid_t tgid, const ls_unwind_process& process) override;
  void erase_process(pid_t tgid) override;
  std::optional<ls_unwind_process> find_process(pid_t tgid) const override;

 private:
  std::vector<std::vector<uint32_t>> segments_;
  std::vector<ls_unwind_rule> rules_ = std::vector<ls_unwind_rule>(LS_UNWIND_MAX_RULES);
  std::unordered_map<pid_t, ls_unwind_process> processes_;
};

/// Descriptors of the maps of bpf/unwind.bpf.h, by the same names. They stay
/// the caller's and must stay open.
struct UnwindMaps {
  int ls_unwind_pool = -1;
  int ls_unwind_rules = -1;
  int ls_unwind_processes = -1;
  int ls_unwind_requests = -1;
};

/// The kernel's maps. Segments are mapped when touched and written directly; a
/// mapped segment counts as resident memory, hence release().
class KernelUnwindMemory : public UnwindMemory {
 public:
  explicit KernelUnwindMemory(const UnwindMaps& maps) : maps_(maps) {}
  ~KernelUnwindMemory() override;

  Status add_segment() override;
  uint32_t segments() const override { return static_cast<uint32_t>(segments_.size()); }
  uint32_t* segment(uint32_t index) override;
  ls_unwind_rule* rules() override;
  void release() override;
  Status set_process(pid_t tgid, const ls_unwind_process& process) override;
  void erase_process(pid_t tgid) override;
  std::optional<ls_unwind_process> find_process(pid_t tgid) const override;
  void wait_for_walks() override;

  /// What the kernel asked for, at most `limit`; stays until forget_request().
  struct Request {
    pid_t tgid = 0;
    ls_unwind_request what{};
  };
  std::vector<Request> requests(size_t limit) const;
  void forget_request(pid_t tgid);

 private:
  struct Segment {
    UniqueFd fd;
    uint32_t* words = nullptr;
  };

  UnwindMaps maps_;
  std::vector<Segment> segments_;
  ls_unwind_rule* rules_ = nullptr;
};

}  // namespace lockscope
