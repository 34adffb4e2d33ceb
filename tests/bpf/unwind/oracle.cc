#include "oracle.h"

namespace lockscope::testing {
namespace {

char* g_debuginfo_path = nullptr;

const Dwfl_Callbacks kCallbacks = {
    .find_elf = dwfl_linux_proc_find_elf,
    .find_debuginfo = dwfl_standard_find_debuginfo,
    .section_address = nullptr,
    .debuginfo_path = &g_debuginfo_path,
};

}  // namespace

Oracle::Oracle(pid_t pid) : pid_(pid), dwfl_(dwfl_begin(&kCallbacks)) {
  static const Dwfl_Thread_Callbacks kThreads = {
      .next_thread = next_thread,
      .get_thread = nullptr,
      .memory_read = memory_read,
      .set_initial_registers = set_registers,
      .detach = nullptr,
      .thread_detach = nullptr,
  };
  if (!dwfl_ || dwfl_linux_proc_report(dwfl_.get(), pid) != 0) return;
  if (dwfl_report_end(dwfl_.get(), nullptr, nullptr) != 0) return;
  attached_ = dwfl_attach_state(dwfl_.get(), nullptr, pid, &kThreads, this);
}

pid_t Oracle::next_thread(Dwfl*, void* self, void** thread) {
  if (*thread) return 0;
  *thread = self;
  return static_cast<Oracle*>(self)->pid_;
}

bool Oracle::memory_read(Dwfl*, Dwarf_Addr address, Dwarf_Word* value, void* self) {
  return (*static_cast<Oracle*>(self)->read_)(address, value);
}

bool Oracle::set_registers(Dwfl_Thread* thread, void* self) {
  return dwfl_thread_state_registers(thread, 0, 17, static_cast<Oracle*>(self)->regs_);
}

std::vector<uint64_t> Oracle::unwind(const uint64_t (&regs)[17], const ReadWord& read) {
  std::vector<uint64_t> frames;
  regs_ = regs;
  read_ = &read;
  dwfl_getthreads(
      dwfl_.get(),
      [](Dwfl_Thread* thread, void* out) {
        dwfl_thread_getframes(
            thread,
            [](Dwfl_Frame* frame, void* out) {
              auto& frames = *static_cast<std::vector<uint64_t>*>(out);
              Dwarf_Addr pc = 0;
              bool exact = false;
              if (!dwfl_frame_pc(frame, &pc, &exact)) return static_cast<int>(DWARF_CB_ABORT);
              if (pc == 0) return static_cast<int>(DWARF_CB_ABORT);
              frames.push_back(exact ? pc : pc - 1);
              return static_cast<int>(frames.size() < 1000 ? DWARF_CB_OK : DWARF_CB_ABORT);
            },
            out);
        return static_cast<int>(DWARF_CB_ABORT);
      },
      &frames);
  return frames;
}

}  // namespace lockscope::testing
