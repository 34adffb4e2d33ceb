#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "parse/file_parser.h"
#include "parse/messages.h"
#include "sandbox/helper_process.h"

namespace lockscope {

/// Has a helper process read files: one that has no rights, limited memory, and
/// is killed when it takes too long. It is started when first needed (about
/// 5 ms) and again when it ended; a request costs 30 µs on top of the work.
///
/// A file whose parsing failed twice, in two helpers, is not tried again; nor
/// are, for a minute, files of a user whose files did so too often. What the
/// helper says is checked for form, but a hostile file that took it over may
/// give wrong names to others until the helper ends.
class SandboxedParser : public FileParser {
 public:
  explicit SandboxedParser(HelperLimits limits = {}) : limits_(limits) {}

  Result<CfaTable> unwind_table(int fd) override;
  Result<ElfLinks> links(int fd) override;
  Result<uint32_t> checksum(int fd) override;
  Result<Compiler> compiler(int fd) override;
  Result<ProbePlan> probe_plan(int fd) override;
  Result<LoadedSymbols> load_symbols(const SymbolSources& sources) override;
  Result<LoadedSymbols> load_jit_map(int fd) override;
  Result<std::vector<Names>> find(SymbolsId id, std::span<const uint64_t> addresses) override;
  Result<std::vector<NamedObject>> find_objects(SymbolsId id,
                                                std::span<const uint64_t> addresses) override;
  bool holds(SymbolsId id) override;
  void unload(SymbolsId id) override;

  /// Whether a helper can be had here, and locks itself in.
  Status check();

  /// Reason -> how many requests got no answer for it. Only what happened.
  const std::map<std::string, uint64_t>& failures() const { return failures_; }

  /// Processor time of all helpers so far, in s.
  double cpu_seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  // A file, as long as nobody changes it.
  struct FileKey {
    uint64_t device = 0, inode = 0;
    int64_t size = 0, changed_s = 0, changed_ns = 0;
    uint32_t owner = 0;
    auto operator<=>(const FileKey&) const = default;
  };
  struct Table {
    SymbolsId id_in_helper = 0;
    FileKey file;
  };
  // Who made it: a user of one file system (containers have their own).
  using Owner = std::pair<uint64_t, uint32_t>;
  struct Record {
    int failures = 0;
    Clock::time_point last;
  };

  template <class T>
  Result<T> ask_about(const ParseRequest& request, std::span<const int> fds);
  // Asks about addresses, as many at once as one request may hold.
  template <class T>
  Result<std::vector<T>> ask_in_batches(ParseRequest::What what, SymbolsId id,
                                        std::span<const uint64_t> addresses);
  Result<LoadedSymbols> load(const ParseRequest& request, std::span<const int> fds);
  // One try. Nothing, and `failure`, which counts against `file`, if the helper
  // gave no answer or nonsense.
  template <class T>
  std::optional<Result<T>> try_once(const ParseRequest& request, std::span<const int> fds,
                                    const FileKey& file, HelperFailure& failure);
  /// Notices a helper that ended between requests: no file's fault.
  void look_after_helper();
  void lose_helper(HelperFailure failure);
  bool is_refused(const FileKey& file);
  void count_failure(HelperFailure failure, const FileKey& file);
  static FileKey key_of(int fd);

  HelperLimits limits_;
  std::unique_ptr<HelperProcess> helper_;
  std::map<SymbolsId, Table> tables_;  // that the helper holds, by our own ids
  SymbolsId last_id_ = 0;
  std::map<FileKey, int> file_failures_;
  std::map<Owner, Record> owners_;
  std::map<std::string, uint64_t> failures_;
  double cpu_of_ended_ = 0;
};

}  // namespace lockscope
