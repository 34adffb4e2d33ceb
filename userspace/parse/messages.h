#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "parse/file_parser.h"

namespace lockscope {

/// What a SandboxedParser asks its helper. Both are the same program: the
/// format is theirs alone.
struct ParseRequest {
  enum class What : uint8_t {
    UnwindTable = 1,
    Links = 2,
    Checksum = 3,
    Compiler = 4,
    LoadSymbols = 5,
    LoadJitMap = 6,
    Find = 7,
    Unload = 8,
    FindObjects = 9,
    ProbePlan = 10,
  };

  What what = What::Links;
  /// LoadSymbols: which descriptors follow the first, and whether with lines.
  bool has_debug_file = false;
  bool has_supplement = false;
  bool lines = false;
  SymbolsId id = 0;                 ///< Find, FindObjects, Unload
  std::vector<uint64_t> addresses;  ///< Find, FindObjects
};

/// Of one request and of one reply, in bytes. The kernel's pool of unwind tables
/// holds 40 MB; an address with all that is inlined there takes some hundred.
inline constexpr size_t kMaxRequestBytes = 1 << 20;
inline constexpr size_t kMaxReplyBytes = 48 << 20;
/// Of one request: a batch should take a fraction of the time limit. Lines with
/// inlined functions take up to 1 ms each.
inline constexpr size_t kMaxAddresses = 512;

std::string encode(const ParseRequest& request);
Result<ParseRequest> decode_request(std::string_view bytes);

/// A reply is a value, or the reason why there is none.
std::string encode(const Error& error);
std::string encode(const CfaTable& table);
std::string encode(const ElfLinks& links);
std::string encode(uint32_t checksum);
std::string encode(Compiler compiler);
std::string encode(const ProbePlan& plan);
std::string encode(const LoadedSymbols& symbols);
std::string encode(const std::vector<Names>& names);
std::string encode(const std::vector<NamedObject>& objects);

/// Takes nothing on trust: what is returned is in bounds, in order where it is
/// said to be, and fit to be printed. Nothing if the bytes are no such reply.
template <class T>
std::optional<Result<T>> decode_reply(std::string_view bytes);
template <>
std::optional<Result<CfaTable>> decode_reply(std::string_view bytes);
template <>
std::optional<Result<ElfLinks>> decode_reply(std::string_view bytes);
template <>
std::optional<Result<uint32_t>> decode_reply(std::string_view bytes);
template <>
std::optional<Result<Compiler>> decode_reply(std::string_view bytes);
template <>
std::optional<Result<ProbePlan>> decode_reply(std::string_view bytes);
template <>
std::optional<Result<LoadedSymbols>> decode_reply(std::string_view bytes);
template <>
std::optional<Result<std::vector<Names>>> decode_reply(std::string_view bytes);
template <>
std::optional<Result<std::vector<NamedObject>>> decode_reply(std::string_view bytes);

}  // namespace lockscope
