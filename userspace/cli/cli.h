#pragma once

namespace lockscope {

/// Runs the command line and returns the exit code: 0, or Error::Kind's.
int run_cli(int argc, char** argv);

}  // namespace lockscope
