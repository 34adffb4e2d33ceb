#pragma once

#include <map>
#include <memory>

#include "parse/file_parser.h"

namespace lockscope {

/// Reads files in this very process: for the sandbox's, and for tests.
class LocalParser : public FileParser {
 public:
  LocalParser();
  ~LocalParser() override;

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
  bool holds(SymbolsId id) override { return tables_.contains(id); }
  void unload(SymbolsId id) override;

 private:
  class Table;
  class ElfTable;
  class JitTable;

  SymbolsId keep(std::unique_ptr<Table> table);

  std::map<SymbolsId, std::unique_ptr<Table>> tables_;
  SymbolsId last_id_ = 0;
};

}  // namespace lockscope
