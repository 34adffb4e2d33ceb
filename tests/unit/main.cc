// As gtest's own, but the tests' helper processes are this program, too.
#include <gtest/gtest.h>

#include "parse/parser_helper.h"

int main(int argc, char** argv) {
  if (lockscope::is_parser_helper(argc, argv)) return lockscope::run_parser_helper(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
