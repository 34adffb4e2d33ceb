#include "cli/cli.h"
#include "parse/parser_helper.h"

int main(int argc, char** argv) {
  if (lockscope::is_parser_helper(argc, argv)) return lockscope::run_parser_helper(argc, argv);
  return lockscope::run_cli(argc, argv);
}
