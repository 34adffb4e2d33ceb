#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "programs.h"

namespace lockscope {

/// The `go` of this machine, or nothing.
inline std::string go_tool() {
  for (const char* pattern :
       {"command -v go", "ls -d /usr/lib/go-*/bin/go | tail -1", "ls -d /usr/local/go/bin/go"}) {
    FILE* pipe = ::popen((std::string(pattern) + " 2>/dev/null").c_str(), "r");
    char line[4096] = "";
    const bool found = std::fgets(line, sizeof line, pipe);
    ::pclose(pipe);
    if (found) return std::string(line).substr(0, std::string(line).find('\n'));
  }
  return "";
}

/// Tests with programs written in Go. Builds take long: one directory, with Go's
/// cache, for all tests of a suite.
class GoTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { dir_ = new TempDir; }
  static void TearDownTestSuite() {
    delete dir_;
    dir_ = nullptr;
  }
  void SetUp() override {
    if (go_tool().empty()) GTEST_SKIP() << "no Go here";
  }

  /// Builds `source` as `name`, if that has not been done.
  static std::string build(const std::string& source, const std::string& name,
                           const std::string& flags = "") {
    const TempDir& dir = *dir_;
    if (!std::filesystem::exists(dir / name)) {
      write_file(dir / "main.go", source);
      run("cd " + dir.path() + " && HOME=" + dir.path() + " GO111MODULE=off " + go_tool() +
          " build " + flags + " -o " + name + " main.go");
    }
    return dir / name;
  }

  inline static TempDir* dir_ = nullptr;
};

}  // namespace lockscope
