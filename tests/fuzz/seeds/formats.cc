// Writes seeds in our own formats, so that they follow them: usage: formats FOLDER
#include <zstd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "../../unit/capture/capture_builder.h"
#include "capture/capture_file.h"
#include "parse/messages.h"

using namespace lockscope;

namespace {

std::filesystem::path folder;

void write(const std::string& name, const std::string& content) {
  std::filesystem::create_directories((folder / name).parent_path());
  std::ofstream(folder / name, std::ios::binary) << content;
}

void write_replies() {
  const auto reply = [](char what, const std::string& body) {
    write(std::string("replies/") + what, what + body);
  };
  CfaTable table;
  table.rules = {{LS_CFA_UNSUPPORTED, 0, 0, 0}, {LS_CFA_SP, LS_BP_SAME, 0, 8}};
  table.segments = {{0x1000, 0x401000, 0x3000, {{0, 1}, {16, 0}}}, {0, 0, 0x1000, {{0, 1}}}};
  reply(0, encode(table));
  reply(1, encode(ElfLinks{"00ff", "a.debug", 7, "b", "ff", true, true}));
  reply(2, encode(5u));
  reply(3, encode(Compiler::Rust));
  reply(4, encode(LoadedSymbols{1, 4096, 3, true, {{0, 0x1000, 0x400000}}}));
  reply(5, encode(std::vector<Names>{{.frames = {{"f", "a.c", 7, "", true}, {"g"}}}, {{}, 0x10}}));
  reply(6, encode(std::vector<NamedObject>{{"g_lock", 8}, {}}));
  reply(7, encode(ParseRequest{.what = ParseRequest::What::Find, .addresses = {1, 2}}));
}

void write_captures() {
  CaptureBuilder builder;
  const Index process = builder.process(7, "service");
  for (const uint32_t traits : {0u, 1u, 2u, 3u}) {
    builder.lock(process, 0x1000 + traits * 64, traits);
    const Index wait = builder.stack(process, {"pthread_mutex_lock@libc.so.6", "work", "main"});
    const Index release = builder.stack(process, {"pthread_mutex_unlock@libc.so.6", "main"});
    builder.waits(traits, wait, 100, 1'000'000);
    builder.releases(traits, release, 100, 100'000'000, 900'000);
    builder.capture().pairs.push_back({traits, wait, release, 100, 100'000'000});
  }
  const std::string path = folder / "capture_file/packed";
  std::filesystem::create_directories(folder / "capture_file");
  if (!save_capture(builder.built(), path)) return;
  std::ostringstream packed;
  packed << std::ifstream(path, std::ios::binary).rdbuf();
  std::string text(1 << 20, '\0');
  text.resize(ZSTD_decompress(text.data(), text.size(), packed.str().data(), packed.str().size()));
  write("capture_file/json", text);
}

}  // namespace

int main(int, char** argv) {
  folder = argv[1];
  write_replies();
  write_captures();
}
