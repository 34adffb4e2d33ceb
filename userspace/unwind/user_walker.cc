#include "unwind/user_walker.h"

#include <sys/uio.h>

#define LS_WALK_INLINE static inline

struct ls_walk;
static int ls_walk_read_user(ls_walk* w, void* to, uint32_t bytes, uint64_t address);
static const uint32_t* ls_walk_segment(ls_walk* w, uint32_t index);
static const ls_unwind_rule* ls_walk_rule(ls_walk* w, uint64_t index);
static void ls_walk_ask(ls_walk*, uint64_t) {}

#include "unwind_walk.h"

namespace {

struct UserWalk : ls_walk {
  lockscope::UnwindMemory* memory;
  const lockscope::MemoryReader* read;
};

}  // namespace

static int ls_walk_read_user(ls_walk* w, void* to, uint32_t bytes, uint64_t address) {
  return (*static_cast<UserWalk*>(w)->read)(to, bytes, address) ? 0 : -1;
}

static const uint32_t* ls_walk_segment(ls_walk* w, uint32_t index) {
  return static_cast<UserWalk*>(w)->memory->segment(index);
}

static const ls_unwind_rule* ls_walk_rule(ls_walk* w, uint64_t index) {
  const ls_unwind_rule* rules = static_cast<UserWalk*>(w)->memory->rules();
  return rules ? &rules[index & (LS_UNWIND_MAX_RULES - 1)] : nullptr;
}

namespace lockscope {

MemoryReader process_memory(pid_t pid) {
  return [pid](void* to, size_t bytes, uint64_t address) {
    iovec local{to, bytes};
    iovec remote{reinterpret_cast<void*>(address), bytes};
    return ::process_vm_readv(pid, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(bytes);
  };
}

ls_frames UserWalker::walk(pid_t tgid, const ls_user_regs& regs, const MemoryReader& read) {
  UserWalk w{};
  w.memory = &memory_;
  w.read = &read;
  ls_walk_start(&w, &regs, static_cast<uint32_t>(tgid));
  if (const auto process = memory_.find_process(tgid)) {
    w.mappings = process->mappings;
    w.n_mappings = process->n_mappings;
  } else {
    w.out.flags = LS_UNWIND_NO_TABLE;
  }
  while (ls_walk_step(&w) == LS_WALK_ON) {
  }
  return w.out;
}

}  // namespace lockscope
