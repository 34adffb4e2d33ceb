#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "symbolize/elf_file.h"

namespace lockscope {

/// A directory of its own for one test, removed with everything in it.
class TempDir {
 public:
  TempDir() {
    char name[] = "/tmp/lockscope-test-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Runs a shell command; the test fails if the command does.
inline void run(const std::string& command) {
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
}

inline void write_file(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string read_all(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

/// An ELF image as sstrip(1) leaves it: without its section table.
inline std::string without_sections(std::string image) {
  Elf64_Ehdr header;
  std::memcpy(&header, image.data(), sizeof header);
  header.e_shoff = header.e_shnum = header.e_shstrndx = 0;
  std::memcpy(image.data(), &header, sizeof header);
  return image;
}

/// Compiles C (or what an -x in the flags says) to `output`.
inline void compile(const std::string& source, const std::string& output,
                    const std::string& flags = "") {
  write_file(output + ".src", source);
  const std::string language = flags.find("-x ") == std::string::npos ? "-x c " : "";
  const std::string compiler = flags.find("-x c++") == std::string::npos ? "gcc " : "g++ ";
  run(compiler + language + flags + " -o " + output + " " + output + ".src");
}

/// The symbols of a file according to nm(1): name to address.
inline std::map<std::string, uint64_t> nm(const std::string& path) {
  std::map<std::string, uint64_t> symbols;
  FILE* pipe = ::popen(("nm --defined-only " + path).c_str(), "r");
  char name[4096], type;
  unsigned long long address;
  while (std::fscanf(pipe, "%llx %c %4095s", &address, &type, name) == 3) symbols[name] = address;
  ::pclose(pipe);
  return symbols;
}

inline ElfFile open_elf(const std::string& path) {
  auto file = ElfFile::open(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)));
  if (!file) throw std::runtime_error(path + ": " + file.error().message);
  return std::move(*file);
}

/// A child process running a shell command, killed at the end of the scope.
/// Reads the addresses that it prints, one "name address" a line, up to "ready".
class Child {
 public:
  explicit Child(const std::string& command) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("pipe");
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(ends[1], 1);
      ::close(ends[0]);
      ::close(ends[1]);
      ::execl("/bin/sh", "sh", "-c", ("exec " + command).c_str(), nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
    FILE* output = ::fdopen(ends[0], "r");
    char name[256];
    unsigned long long address;
    while (std::fscanf(output, "%255s", name) == 1 && std::string(name) != "ready") {
      if (std::fscanf(output, "%llx", &address) == 1) addresses_[name] = address;
    }
    std::fclose(output);
  }
  ~Child() { stop(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  uint64_t address(const std::string& name) const { return addresses_.at(name); }
  void stop() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  std::map<std::string, uint64_t> addresses_;
};

/// A C program that prints the addresses of its functions `worker` (or as it is
/// called) and main, and waits.
inline std::string waiting_program(const std::string& worker = "worker") {
  return R"(
    #include <stdio.h>
    #include <unistd.h>
    __attribute__((noinline)) int )" +
         worker + R"((int n) { __asm__ volatile("nop; nop"); return n * 3; }
    int main(void) {
      printf("worker %lx\nmain %lx\nready\n", (unsigned long)&)" +
         worker + R"(, (unsigned long)&main);
      fflush(stdout);
      )" +
         worker + R"((1);
      while (1) pause();
    })";
}

}  // namespace lockscope
