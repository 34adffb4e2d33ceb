#include "parse/sandboxed_parser.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "parse/parser_helper.h"

namespace lockscope {
namespace {

using What = ParseRequest::What;

constexpr int kTriesPerFile = 2;
// Each may have cost the time limit.
constexpr int kFailuresPerOwner = 8;
constexpr std::chrono::minutes kOwnersPenance{1};
// Remembered; beyond that, all is forgiven.
constexpr size_t kMaxRemembered = 4096;

const char* reason(HelperFailure failure) {
  switch (failure) {
    case HelperFailure::NotStarted:
      return "files not read: no sandbox";
    case HelperFailure::Crashed:
      return "files not read: the parser crashed";
    case HelperFailure::Forbidden:
      return "files not read: the parser broke out";
    case HelperFailure::TimeLimit:
      return "files not read: took too long";
    case HelperFailure::MemoryLimit:
      return "files not read: took too much memory";
    case HelperFailure::BadReply:
      return "files not read: the parser's reply made no sense";
  }
  return "";
}

constexpr const char* kRefused = "files not read: failed before";

}  // namespace

Result<CfaTable> SandboxedParser::unwind_table(int fd) {
  return ask_about<CfaTable>({.what = What::UnwindTable}, std::array{fd});
}

Result<ElfLinks> SandboxedParser::links(int fd) {
  return ask_about<ElfLinks>({.what = What::Links}, std::array{fd});
}

Result<uint32_t> SandboxedParser::checksum(int fd) {
  return ask_about<uint32_t>({.what = What::Checksum}, std::array{fd});
}

Result<Compiler> SandboxedParser::compiler(int fd) {
  return ask_about<Compiler>({.what = What::Compiler}, std::array{fd});
}

Result<ProbePlan> SandboxedParser::probe_plan(int fd) {
  return ask_about<ProbePlan>({.what = What::ProbePlan}, std::array{fd});
}

Result<LoadedSymbols> SandboxedParser::load_symbols(const SymbolSources& sources) {
  ParseRequest request{.what = What::LoadSymbols, .lines = sources.lines};
  request.has_debug_file = sources.debug_file >= 0;
  request.has_supplement = sources.supplement >= 0;
  std::vector<int> fds{sources.file};
  if (request.has_debug_file) fds.push_back(sources.debug_file);
  if (request.has_supplement) fds.push_back(sources.supplement);
  return load(request, fds);
}

Result<LoadedSymbols> SandboxedParser::load_jit_map(int fd) {
  return load({.what = What::LoadJitMap}, std::array{fd});
}

Result<LoadedSymbols> SandboxedParser::load(const ParseRequest& request, std::span<const int> fds) {
  auto loaded = ask_about<LoadedSymbols>(request, fds);
  if (!loaded) return loaded;
  // Ours are never used again, as a helper's are by the next one.
  tables_[++last_id_] = {loaded->id, key_of(fds[0])};
  loaded->id = last_id_;
  return loaded;
}

Result<std::vector<Names>> SandboxedParser::find(SymbolsId id,
                                                 std::span<const uint64_t> addresses) {
  return ask_in_batches<Names>(What::Find, id, addresses);
}

Result<std::vector<NamedObject>> SandboxedParser::find_objects(
    SymbolsId id, std::span<const uint64_t> addresses) {
  return ask_in_batches<NamedObject>(What::FindObjects, id, addresses);
}

template <class T>
Result<std::vector<T>> SandboxedParser::ask_in_batches(What what, SymbolsId id,
                                                       std::span<const uint64_t> addresses) {
  std::vector<T> all;
  while (!addresses.empty()) {
    look_after_helper();
    const auto table = tables_.find(id);
    if (table == tables_.end()) return failed("the parser ended, and with it these symbols");
    const auto batch = addresses.first(std::min(addresses.size(), kMaxAddresses));
    addresses = addresses.subspan(batch.size());
    const ParseRequest request{
        .what = what, .id = table->second.id_in_helper, .addresses = {batch.begin(), batch.end()}};
    // A copy: the table goes when this fails.
    const FileKey file = table->second.file;
    HelperFailure failure{};
    auto reply = try_once<std::vector<T>>(request, {}, file, failure);
    if (!reply) return failed(reason(failure));
    auto& found = *reply;
    if (!found) return found;
    found->resize(batch.size());
    all.insert(all.end(), std::make_move_iterator(found->begin()),
               std::make_move_iterator(found->end()));
  }
  return all;
}

bool SandboxedParser::holds(SymbolsId id) {
  look_after_helper();
  return tables_.contains(id);
}

void SandboxedParser::unload(SymbolsId id) {
  const auto table = tables_.find(id);
  if (table == tables_.end()) return;
  const Table gone = table->second;
  tables_.erase(table);
  HelperFailure failure{};
  (void)try_once<uint32_t>({.what = What::Unload, .id = gone.id_in_helper}, {}, gone.file, failure);
}

template <class T>
Result<T> SandboxedParser::ask_about(const ParseRequest& request, std::span<const int> fds) {
  const FileKey file = key_of(fds[0]);
  while (true) {
    if (is_refused(file)) {
      ++failures_[kRefused];
      return failed(kRefused);
    }
    HelperFailure failure{};
    if (auto reply = try_once<T>(request, fds, file, failure)) return std::move(*reply);
    // It may have been an earlier file's doing: once more, in a fresh helper.
    if (failure == HelperFailure::NotStarted) return failed(reason(failure));
  }
}

template <class T>
std::optional<Result<T>> SandboxedParser::try_once(const ParseRequest& request,
                                                   std::span<const int> fds, const FileKey& file,
                                                   HelperFailure& failure) {
  look_after_helper();
  if (!helper_) {
    auto started = HelperProcess::start(kParserHelperName, limits_);
    if (started) helper_ = std::move(*started);
  }
  failure = HelperFailure::NotStarted;
  if (helper_) {
    const auto answer = helper_->ask(encode(request), fds, kMaxReplyBytes);
    auto reply = answer.failure ? std::nullopt : decode_reply<T>(answer.body);
    if (reply) return reply;
    failure = answer.failure.value_or(HelperFailure::BadReply);
  }
  count_failure(failure, file);
  return std::nullopt;
}

void SandboxedParser::look_after_helper() {
  if (helper_ && helper_->has_ended()) lose_helper(HelperFailure::Crashed);
}

// With all that it has loaded, whether or not it has ended by itself.
void SandboxedParser::lose_helper(HelperFailure failure) {
  ++failures_[reason(failure)];
  if (helper_) cpu_of_ended_ += helper_->cpu_seconds();
  helper_.reset();
  tables_.clear();
}

void SandboxedParser::count_failure(HelperFailure failure, const FileKey& file) {
  lose_helper(failure);
  if (failure == HelperFailure::NotStarted) return;
  if (file_failures_.size() >= kMaxRemembered) file_failures_.clear();
  if (owners_.size() >= kMaxRemembered) owners_.clear();
  ++file_failures_[file];
  Record& owner = owners_[{file.device, file.owner}];
  ++owner.failures;
  owner.last = Clock::now();
}

bool SandboxedParser::is_refused(const FileKey& file) {
  if (const auto known = file_failures_.find(file);
      known != file_failures_.end() && known->second >= kTriesPerFile) {
    return true;
  }
  const auto owner = owners_.find({file.device, file.owner});
  if (owner == owners_.end()) return false;
  if (Clock::now() - owner->second.last > kOwnersPenance) {
    owners_.erase(owner);
    return false;
  }
  return owner->second.failures >= kFailuresPerOwner;
}

SandboxedParser::FileKey SandboxedParser::key_of(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return {};
  return {info.st_dev,         info.st_ino,          info.st_size,
          info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_uid};
}

Status SandboxedParser::check() {
  HelperFailure failure{};
  if (try_once<uint32_t>({.what = What::Unload}, {}, {}, failure)) return {};
  return failed(reason(failure));
}

double SandboxedParser::cpu_seconds() const {
  return cpu_of_ended_ + (helper_ ? helper_->cpu_seconds() : 0);
}

}  // namespace lockscope
