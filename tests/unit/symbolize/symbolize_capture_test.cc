// Naming what a capture holds.

#include "symbolize/symbolize_capture.h"

#include <gtest/gtest.h>

#include "programs.h"
#include "test_symbolizer.h"

namespace lockscope {
namespace {

Capture capture_of(const Child& child) {
  Capture capture;
  Process process;
  process.pid = child.pid();
  process.mappings = *read_maps(child.pid());
  capture.processes.push_back(process);
  return capture;
}

// A capture's addresses lie within the instruction already: a call that begins a
// function is not the function before it.
TEST(SymbolizeCapture, AddressesAsTheyAre) {
  TempDir dir;
  compile(waiting_program(), dir / "a");
  Child child(dir / "a");
  Capture capture = capture_of(child);
  capture.stacks.push_back({0, 0, {child.address("worker"), child.address("main")}});
  TestSymbolizer symbolizer;
  const SymbolizedCapture named = symbolize(capture, symbolizer);
  ASSERT_EQ(named.frames.at(0).size(), 2u);
  EXPECT_EQ(named.frames[0][0].function, "worker");
  EXPECT_EQ(named.frames[0][1].function, "main");
}

}  // namespace
}  // namespace lockscope
