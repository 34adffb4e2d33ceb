#include "symbolize/elf_symbols.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstring>

#include "programs.h"

namespace lockscope {
namespace {

std::string name_at(const ElfSymbols& symbols, uint64_t address) {
  const auto symbol = symbols.find(address);
  return symbol ? std::string(symbol->name) : "";
}

constexpr char kFunctions[] = R"(
  static __attribute__((noinline)) int hidden(int n) { __asm__ volatile(""); return n + 1; }
  __attribute__((noinline)) int visible(int n) { return hidden(n) * 2; }
  int alias(int n) __attribute__((alias("visible")));
  int __inner(int n) __attribute__((alias("visible")));
  __asm__(".pushsection .text\n.globl bare\n.type bare, @function\n"
          "nop\nbare:\nnop\nret\n"
          ".globl plain\n.type plain, @function\nplain:\nret\n.popsection\n"
          ".section .text.other,\"ax\"\nnop\n.type last,@function\nlast:\nret\n"
          ".section .text.zzz,\"ax\"\n.text");
  int data = 1;
  int main(void) { return visible(data); }
)";

TEST(ElfSymbols, NamesOfLibc) {
  // By handle: under a sanitizer, the plain names lead to its own functions.
  void* libc = ::dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  ASSERT_TRUE(libc);
  Dl_info info;
  ASSERT_TRUE(::dladdr(::dlsym(libc, "pthread_mutex_lock"), &info));
  const ElfFile file = open_elf(info.dli_fname);
  const ElfSymbols symbols = ElfSymbols::load(file);
  const auto address_of = [&](const char* name) {
    return reinterpret_cast<uint64_t>(::dlsym(libc, name)) -
           reinterpret_cast<uint64_t>(info.dli_fbase);
  };
  // Each has aliases with underscores at the same address, and a version.
  for (const char* name :
       {"pthread_mutex_lock", "write", "printf", "malloc", "pthread_rwlock_rdlock"}) {
    EXPECT_EQ(name_at(symbols, address_of(name)), name);
    EXPECT_EQ(name_at(symbols, address_of(name) + 5), name);
  }
  EXPECT_GT(symbols.size(), 1500u);
  EXPECT_EQ(file.build_id().size(), 40u);
}

TEST(ElfSymbols, ExactRanges) {
  TempDir dir;
  compile(kFunctions, dir / "a", "-O1");
  const auto truth = nm(dir / "a");
  const ElfSymbols symbols = ElfSymbols::load(open_elf(dir / "a"));

  const auto hidden = symbols.find(truth.at("hidden"));
  ASSERT_TRUE(hidden);
  EXPECT_EQ(hidden->name, "hidden");
  EXPECT_EQ(hidden->start, truth.at("hidden"));
  EXPECT_GT(hidden->size, 0u);
  EXPECT_EQ(name_at(symbols, hidden->start + hidden->size - 1), "hidden");
  EXPECT_NE(name_at(symbols, hidden->start + hidden->size), "hidden");
  EXPECT_NE(name_at(symbols, hidden->start - 1), "hidden");
  EXPECT_EQ(name_at(symbols, truth.at("visible")), "alias") << "shortest, no underscores";
  EXPECT_EQ(name_at(symbols, truth.at("main")), "main");
  EXPECT_EQ(name_at(symbols, truth.at("_start")), "_start");
  EXPECT_EQ(name_at(symbols, truth.at("data")), "") << "not a function";
  EXPECT_EQ(name_at(symbols, 0), "");
  EXPECT_EQ(name_at(symbols, ~0ull), "");
}

TEST(ElfSymbols, SymbolsWithoutSizeEndAtTheNextOrWithTheSection) {
  TempDir dir;
  compile(kFunctions, dir / "a", "-O1");
  const auto truth = nm(dir / "a");
  const ElfFile file = open_elf(dir / "a");
  const ElfSymbols symbols = ElfSymbols::load(file);
  EXPECT_EQ(name_at(symbols, truth.at("bare")), "bare");
  EXPECT_EQ(name_at(symbols, truth.at("bare") + 1), "bare");
  EXPECT_NE(name_at(symbols, truth.at("bare") - 1), "bare");
  EXPECT_EQ(name_at(symbols, truth.at("plain")), "plain");
  // _init and _fini are alone in their sections.
  const ElfFile::Section* fini = file.find_section(".fini");
  ASSERT_TRUE(fini);
  EXPECT_EQ(name_at(symbols, fini->header.sh_addr + fini->header.sh_size - 1), "_fini");
  EXPECT_EQ(name_at(symbols, fini->header.sh_addr + fini->header.sh_size), "");
}

TEST(ElfSymbols, SymbolsWithoutSizeClaimNothingThatMayBeAnothers) {
  TempDir dir;
  compile(kFunctions, dir / "a", "-O1 -rdynamic");
  const auto truth = nm(dir / "a");
  run("strip " + (dir / "a"));
  const ElfSymbols symbols = ElfSymbols::load(open_elf(dir / "a"));
  EXPECT_EQ(name_at(symbols, truth.at("main")), "main");
  EXPECT_EQ(name_at(symbols, truth.at("bare")), "") << "no size, no .eh_frame: may end anywhere";
  EXPECT_EQ(name_at(symbols, truth.at("hidden")), "");
}

TEST(ElfSymbols, NestedSymbols) {
  SymbolTableBuilder builder;
  builder.add("outer", 100, 100, 0, 0);
  builder.add("inner", 120, 10, 0, 0);
  builder.add("label", 150, 0, 200, 0);
  builder.add("after", 200, 0, 0x1000, 0);
  builder.add("next", 250, 5, 0, 0);
  const SymbolTable table = builder.build();
  const auto name = [&](uint64_t a) {
    const auto symbol = table.find(a);
    return symbol ? std::string(symbol->name) : "";
  };
  EXPECT_EQ(name(99), "");
  EXPECT_EQ(name(119), "outer");
  EXPECT_EQ(name(129), "inner");
  EXPECT_EQ(name(130), "outer");
  EXPECT_EQ(name(150), "outer") << "a label inside is no function";
  EXPECT_EQ(name(199), "outer");
  EXPECT_EQ(name(249), "after");
  EXPECT_EQ(name(254), "next");
  EXPECT_EQ(name(255), "");
}

TEST(ElfSymbols, StaticAndStaticPie) {
  TempDir dir;
  for (const char* flags : {"-static", "-static-pie", "-no-pie", "-pie"}) {
    compile(kFunctions, dir / "a", std::string("-O1 ") + flags);
    const auto truth = nm(dir / "a");
    const ElfFile file = open_elf(dir / "a");
    const ElfSymbols symbols = ElfSymbols::load(file);
    EXPECT_EQ(name_at(symbols, truth.at("hidden")), "hidden") << flags;
    const auto offset = file.offset_of_address(truth.at("hidden"));
    ASSERT_TRUE(offset) << flags;
    EXPECT_EQ(file.address_of_offset(*offset), truth.at("hidden")) << flags;
  }
}

TEST(ElfSymbols, StrippedHasRanges) {
  TempDir dir;
  compile(kFunctions, dir / "a", "-O1");
  const auto truth = nm(dir / "a");
  run("strip " + (dir / "a"));
  const ElfSymbols symbols = ElfSymbols::load(open_elf(dir / "a"));
  EXPECT_EQ(name_at(symbols, truth.at("hidden")), "");
  const auto range = symbols.find_range(truth.at("hidden") + 1);
  ASSERT_TRUE(range);
  EXPECT_EQ(range->start, truth.at("hidden"));
  EXPECT_FALSE(symbols.find_range(truth.at("data")));
}

TEST(ElfSymbols, WithoutSectionHeaders) {
  TempDir dir;
  compile(kFunctions, dir / "a", "-O1 -no-pie");
  const auto file = ElfFile::from_memory(without_sections(read_all(dir / "a")));
  ASSERT_TRUE(file.ok());
  EXPECT_FALSE(file->build_id().empty());
  EXPECT_EQ(name_at(ElfSymbols::load(*file), nm(dir / "a").at("visible")), "");
}

// What the run-time linker uses must be in every file that has such symbols.
TEST(ElfSymbols, DynamicOnesWithoutSectionHeaders) {
  TempDir dir;
  for (const char* flags : {"-rdynamic -Wl,--hash-style=gnu", "-rdynamic -Wl,--hash-style=sysv",
                            "-shared -fPIC -Wl,--hash-style=both"}) {
    SCOPED_TRACE(flags);
    compile(kFunctions, dir / "a", std::string("-O1 ") + flags);
    const auto truth = nm(dir / "a");
    const auto file = ElfFile::from_memory(without_sections(read_all(dir / "a")));
    ASSERT_TRUE(file.ok());
    const ElfSymbols symbols = ElfSymbols::load(*file);
    EXPECT_EQ(name_at(symbols, truth.at("visible")), "alias");
    EXPECT_EQ(name_at(symbols, truth.at("main") + 1), "main");
    EXPECT_EQ(name_at(symbols, truth.at("hidden")), "");
  }
}

TEST(ElfSymbols, DynamicOnesOfLibcWithoutSectionHeaders) {
  Dl_info info;
  ASSERT_TRUE(::dladdr(
      ::dlsym(::dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), "pthread_mutex_lock"), &info));
  const auto file = ElfFile::from_memory(without_sections(read_all(info.dli_fname)));
  ASSERT_TRUE(file.ok());
  const ElfSymbols with = ElfSymbols::load(open_elf(info.dli_fname));
  const ElfSymbols without = ElfSymbols::load(*file);
  // Less those without a size, which nothing bounds.
  EXPECT_GT(without.size(), with.size() * 9 / 10);
}

// Built without .eh_frame, as some C programs are.
TEST(ElfSymbols, WithDebugFrameOnly) {
  TempDir dir;
  compile(kFunctions, dir / "a", "-O1 -g -fno-asynchronous-unwind-tables -fno-unwind-tables");
  const auto truth = nm(dir / "a");
  ASSERT_TRUE(open_elf(dir / "a").find_section(".debug_frame"));
  const ElfSymbols symbols = ElfSymbols::load(open_elf(dir / "a"));
  EXPECT_EQ(name_at(symbols, truth.at("hidden") + 1), "hidden");
  EXPECT_EQ(name_at(symbols, truth.at("main")), "main");
}

}  // namespace
}  // namespace lockscope
