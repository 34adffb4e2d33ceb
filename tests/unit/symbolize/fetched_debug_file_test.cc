// Debug files that come from elsewhere: when they are asked for.

#include <gtest/gtest.h>

#include "programs.h"
#include "test_symbolizer.h"

namespace lockscope {
namespace {

class FetchedDebugFile : public ::testing::Test {
 protected:
  void SetUp() override {
    compile(waiting_program(), dir_ / "full", "-O1 -g -Wl,--build-id");
    run("strip -s -o " + (dir_ / "stripped") + " " + (dir_ / "full"));
  }

  // The name of "worker" in a program, if this is what is fetched.
  std::string name_in(const std::string& program, const std::string& fetched) {
    Child child(dir_ / program);
    const auto maps = *read_maps(child.pid());
    TestSymbolizer symbolizer({.fetch_debug_file = [&](const std::string& id) {
      asked_.push_back(id);
      if (fetched.empty()) return UniqueFd();
      return UniqueFd(::open((dir_ / fetched).c_str(), O_RDONLY | O_CLOEXEC));
    }});
    symbolizer.preload(child.pid(), maps);
    EXPECT_EQ(asked_.size(), 0u);
    const auto at = [&](const char* what) {
      return symbolizer.symbolize(child.pid(), maps, child.address(what), AddressKind::Exact)
          .at(0)
          .function;
    };
    EXPECT_EQ(at("main") == "main", at("worker") == "worker");
    const std::string name = at("worker");
    EXPECT_TRUE(symbolizer.parser().failures().empty());
    return name;
  }

  TempDir dir_;
  std::vector<std::string> asked_;
};

TEST_F(FetchedDebugFile, NamesAStrippedProgram) {
  EXPECT_EQ(name_in("stripped", "full"), "worker");
  EXPECT_EQ(asked_, std::vector{open_elf(dir_ / "full").build_id()});
}

TEST_F(FetchedDebugFile, IsAskedForOnceWhereThereIsNone) {
  EXPECT_EQ(name_in("stripped", "").substr(0, 12), "stripped!fn@");
  EXPECT_EQ(asked_.size(), 1u);
}

TEST_F(FetchedDebugFile, MustHaveTheBuildId) {
  compile(waiting_program(), dir_ / "other", "-O1 -g -Wl,--build-id=0x0123456789abcdef");
  write_file(dir_ / "page", "<html>not found</html>");
  for (const char* fetched : {"other", "page"}) {
    asked_.clear();
    EXPECT_EQ(name_in("stripped", fetched).substr(0, 12), "stripped!fn@");
    EXPECT_EQ(asked_.size(), 1u);
  }
}

TEST_F(FetchedDebugFile, IsNotAskedForWithASymbolTable) {
  EXPECT_EQ(name_in("full", "full"), "worker");
  EXPECT_EQ(asked_.size(), 0u);
}

}  // namespace
}  // namespace lockscope
