#pragma once

namespace lockscope {

/// argv[0] of a helper; main() of every program that uses a SandboxedParser
/// must hand over to run_parser_helper() when it sees that.
inline constexpr const char* kParserHelperName = "lockscope-parser";
bool is_parser_helper(int argc, char** argv);

/// The helper: locks itself down, then answers until nobody asks any more.
/// Returns the exit code.
int run_parser_helper(int argc, char** argv);

}  // namespace lockscope
