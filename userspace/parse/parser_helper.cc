#include "parse/parser_helper.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <string_view>

#include "parse/local_parser.h"
#include "parse/messages.h"
#include "sandbox/helper_process.h"

namespace lockscope {
namespace {

using What = ParseRequest::What;

template <class T>
std::string encode_result(const Result<T>& result) {
  return result ? encode(*result) : encode(result.error());
}

SymbolSources sources_of(const ParseRequest& request, const std::vector<UniqueFd>& fds) {
  SymbolSources sources{.file = fds[0].get(), .lines = request.lines};
  size_t next = 1;
  if (request.has_debug_file && next < fds.size()) sources.debug_file = fds[next++].get();
  if (request.has_supplement && next < fds.size()) sources.supplement = fds[next++].get();
  return sources;
}

std::string answer(LocalParser& parser, const ParseRequest& request,
                   const std::vector<UniqueFd>& fds) {
  if (request.what == What::Find) return encode_result(parser.find(request.id, request.addresses));
  if (request.what == What::FindObjects) {
    return encode_result(parser.find_objects(request.id, request.addresses));
  }
  if (request.what == What::Unload) {
    parser.unload(request.id);
    return encode(0u);
  }
  if (fds.empty()) return encode(failed("no file"));
  const int fd = fds[0].get();
  switch (request.what) {
    case What::UnwindTable:
      return encode_result(parser.unwind_table(fd));
    case What::Links:
      return encode_result(parser.links(fd));
    case What::Checksum:
      return encode_result(parser.checksum(fd));
    case What::Compiler:
      return encode_result(parser.compiler(fd));
    case What::ProbePlan:
      return encode_result(parser.probe_plan(fd));
    case What::LoadSymbols:
      return encode_result(parser.load_symbols(sources_of(request, fds)));
    case What::LoadJitMap:
      return encode_result(parser.load_jit_map(fd));
    default:
      return encode(failed("no such request"));
  }
}

}  // namespace

bool is_parser_helper(int argc, char** argv) {
  return argc == 2 && std::string_view(argv[0]) == kParserHelperName;
}

int run_parser_helper(int, char** argv) {
  // What was half done with the memory that there is can't go on; and a fresh
  // helper has it all again.
  std::set_new_handler([] { ::_exit(kHelperOutOfMemory); });
  ::prctl(PR_SET_NAME, kParserHelperName);
  if (!lock_down({.memory_bytes = std::strtoull(argv[1], nullptr, 10)})) return kHelperNoSandbox;
  Channel channel{UniqueFd(kHelperSocket)};
  LocalParser parser;
  Message message;
  while (channel.receive(kMaxRequestBytes, message)) {
    const auto request = decode_request(message.body);
    const std::string reply =
        request ? answer(parser, *request, message.fds) : encode(request.error());
    if (!channel.send(reply)) break;
  }
  return 0;
}

}  // namespace lockscope
