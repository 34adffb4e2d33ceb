#include "cli/cli.h"

int main(int argc, char** argv) { return lockscope::run_cli(argc, argv); }
