// What a traced process may do to the files we read as root.

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "programs.h"
#include "symbolize/elf_links.h"
#include "symbolize/elf_symbols.h"

namespace lockscope {
namespace {

constexpr char kSource[] = R"(
  int one(int n) { return n + 1; }
  int two(int n) { return one(n) * 2; }
  int main(int argc, char** argv) { return two(argc); }
)";

// Everything that reads the file. Nothing is asserted but that it returns, and
// that what it finds is what it says.
void read_everything(const std::string& image) {
  auto file = ElfFile::from_memory(image);
  if (!file) return;
  file->build_id();
  const ElfSymbols symbols = ElfSymbols::load(*file);
  const EhFrameRanges ranges = EhFrameRanges::load(*file);
  read_links(*file);
  for (uint64_t address = 0; address < 0x4000; address += 61) {
    if (const auto symbol = symbols.find(address)) {
      ASSERT_LT(address - symbol->start, symbol->size);
      ASSERT_LE(symbol->name.size(), SymbolTableBuilder::kMaxNameBytes);
    }
    if (const auto object = symbols.find_object(address)) {
      ASSERT_LT(address - object->start, object->size);
    }
    if (const auto range = ranges.find(address)) {
      ASSERT_LT(address - range->start, range->size);
    }
    file->address_of_offset(address);
  }
}

class HostileElf : public ::testing::Test {
 protected:
  void SetUp() override {
    compile(kSource, dir_ / "a", "-O1");
    image_ = read_all(dir_ / "a");
    ASSERT_GT(image_.size(), 1000u);
  }

  TempDir dir_;
  std::string image_;
};

TEST_F(HostileElf, BitFlips) {
  std::mt19937 random(42);
  for (int round = 0; round < 4000; ++round) {
    std::string image = image_;
    const int flips = 1 + static_cast<int>(random() % 16);
    for (int i = 0; i < flips; ++i) image[random() % image.size()] ^= char(1 << random() % 8);
    read_everything(image);
  }
}

// Most bytes of a file are code; the tables that steer us are the headers.
TEST_F(HostileElf, BadNumbersInTables) {
  Elf64_Ehdr header;
  std::memcpy(&header, image_.data(), sizeof header);
  const ElfFile file = open_elf(dir_ / "a");
  std::vector<std::pair<uint64_t, uint64_t>> tables = {
      {0, sizeof header},
      {header.e_phoff, header.e_phnum * sizeof(Elf64_Phdr)},
      {header.e_shoff, header.e_shnum * sizeof(Elf64_Shdr)}};
  for (const char* name : {".symtab", ".strtab", ".dynsym", ".eh_frame", ".note.gnu.build-id"}) {
    const Elf64_Shdr& section = file.find_section(name)->header;
    tables.emplace_back(section.sh_offset, section.sh_size);
  }
  static constexpr uint64_t kNumbers[] = {
      0,          1,          0x7f,       0xff,  0xffff,    0x7fffffff, 0xffffffff, 0xfffffffc,
      1ull << 32, 1ull << 62, 1ull << 63, ~0ull, ~0ull - 7, 4096,       0x3fffff,   24};
  std::mt19937 random(7);
  for (int round = 0; round < 8000; ++round) {
    std::string image = image_;
    for (int i = 0; i < 1 + int(random() % 3); ++i) {
      const auto& [offset, size] = tables[random() % tables.size()];
      const size_t width = size_t{1} << random() % 4;
      const size_t at = offset + random() % size / width * width;
      if (at + width > image.size()) continue;
      std::memcpy(image.data() + at, &kNumbers[random() % std::size(kNumbers)], width);
    }
    read_everything(image);
  }
}

// Nothing but the segments leads to the symbols.
TEST_F(HostileElf, BadNumbersWithoutSections) {
  compile(kSource, dir_ / "b", "-O1 -rdynamic -Wl,--hash-style=gnu");
  const ElfFile file = open_elf(dir_ / "b");
  const std::string whole = without_sections(read_all(dir_ / "b"));
  ASSERT_GT(ElfSymbols::load(*ElfFile::from_memory(whole)).size(), 2u);
  std::vector<std::pair<uint64_t, uint64_t>> tables;
  for (const char* name : {".dynamic", ".gnu.hash", ".dynsym", ".dynstr"}) {
    const Elf64_Shdr& section = file.find_section(name)->header;
    tables.emplace_back(section.sh_offset, section.sh_size);
  }
  static constexpr uint64_t kNumbers[] = {0,          1,          0xffff,     0x3fffff, 0x7fffffff,
                                          0xffffffff, 0xfffffffe, 1ull << 32, ~0ull,    ~0ull - 7};
  std::mt19937 random(9);
  for (int round = 0; round < 4000; ++round) {
    std::string image = whole;
    const auto& [offset, size] = tables[random() % tables.size()];
    const size_t width = size_t{4} << random() % 2;
    const size_t at = offset + random() % size / width * width;
    std::memcpy(image.data() + at, &kNumbers[random() % std::size(kNumbers)], width);
    read_everything(image);
  }
}

TEST_F(HostileElf, Truncations) {
  std::mt19937 random(3);
  for (size_t size = 0; size < 700; size += 7) read_everything(image_.substr(0, size));
  for (int round = 0; round < 500; ++round) {
    read_everything(image_.substr(0, random() % image_.size()));
  }
}

TEST_F(HostileElf, FileCutWhileOpen) {
  // A mapped file would end us with SIGBUS here.
  const ElfFile file = open_elf(dir_ / "a");
  ASSERT_EQ(::truncate((dir_ / "a").c_str(), 5000), 0);
  EXPECT_EQ(ElfSymbols::load(file).size(), 0u);
  ASSERT_EQ(::truncate((dir_ / "a").c_str(), 0), 0);
  EXPECT_EQ(ElfSymbols::load(file).size(), 0u);
  EXPECT_EQ(file.build_id(), "");
}

TEST_F(HostileElf, HugeSparseFile) {
  // Section headers that claim most of 8 TiB: refused by the caps, not read.
  Elf64_Ehdr header;
  std::memcpy(&header, image_.data(), sizeof header);
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    auto* section = reinterpret_cast<Elf64_Shdr*>(image_.data() + header.e_shoff) + i;
    if (section->sh_type == SHT_SYMTAB || section->sh_type == SHT_STRTAB ||
        section->sh_type == SHT_PROGBITS) {
      section->sh_size = 7ull << 40;
    }
  }
  write_file(dir_ / "huge", image_);
  if (::truncate((dir_ / "huge").c_str(), 8ll << 40) != 0) {
    GTEST_SKIP() << "no sparse files of this size here";
  }
  const ElfFile file = open_elf(dir_ / "huge");
  EXPECT_EQ(ElfSymbols::load(file).size(), 0u);
}

TEST(HostileSymbols, DeepNestingAndManyEqual) {
  SymbolTableBuilder builder;
  for (uint64_t i = 0; i < 200000; ++i) builder.add("n", i, 400000 - 2 * i, 0, 0);
  for (uint64_t i = 0; i < 200000; ++i) builder.add("z", 500000, 0, 600000, 0);
  const SymbolTable table = builder.build();
  for (uint64_t i = 0; i < 600000; ++i) {
    if (const auto symbol = table.find(i)) {
      ASSERT_LT(i - symbol->start, symbol->size);
    }
  }
}

TEST(HostileFile, NotAnElf) {
  TempDir dir;
  write_file(dir / "text", "#!/bin/sh\n");
  run("mkfifo " + (dir / "fifo"));
  for (const std::string& path :
       {dir / "text", dir / "fifo", dir.path(), std::string("/dev/null")}) {
    EXPECT_FALSE(
        ElfFile::open(UniqueFd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC))).ok());
  }
  EXPECT_FALSE(ElfFile::open(UniqueFd()).ok());
}

}  // namespace
}  // namespace lockscope
