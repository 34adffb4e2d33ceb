#pragma once

#include <elfutils/libdwfl.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace lockscope::testing {

/// Unwinds with elfutils, which knows nothing of our tables. For live
/// processes: their modules are read once.
class Oracle {
 public:
  /// False on failure.
  using ReadWord = std::function<bool(uint64_t address, uint64_t* value)>;

  explicit Oracle(pid_t pid);

  bool ok() const { return attached_; }

  /// `regs` in the order of DWARF's columns 0 to 16. Addresses as in
  /// struct ls_frames: return addresses less one.
  std::vector<uint64_t> unwind(const uint64_t (&regs)[17], const ReadWord& read);

 private:
  struct End {
    void operator()(Dwfl* dwfl) const { dwfl_end(dwfl); }
  };

  static pid_t next_thread(Dwfl*, void* self, void** thread);
  static bool memory_read(Dwfl*, Dwarf_Addr address, Dwarf_Word* value, void* self);
  static bool set_registers(Dwfl_Thread* thread, void* self);

  pid_t pid_;
  std::unique_ptr<Dwfl, End> dwfl_;
  bool attached_ = false;
  const uint64_t* regs_ = nullptr;
  const ReadWord* read_ = nullptr;
};

}  // namespace lockscope::testing
