# lockscope: see README.md. V=1 shows the commands.
BUILD ?= build
CXX   ?= g++
CLANG ?= clang-14
PYTHON ?= /usr/bin/python3
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool) bpftool)
Q := $(if $(V),,@)
say = @$(if $(V),true,printf '  %-8s %s\n' $(1) $(2))

CPPFLAGS += -Iuserspace -Ibpf -I$(BUILD)
CXXFLAGS += -std=c++20 -O2 -g -Wall -Wextra -Wno-missing-field-initializers -Wno-restrict -fno-omit-frame-pointer
LDLIBS   += -lbpf -lelf -lz -lzstd -llzma -ldw -liberty -lseccomp -lspdlog -lfmt -lZydis -lpthread

FUZZ_SECONDS ?= 600

.PHONY: all demo test test-unit test-fuzz fuzz test-e2e test-unwind test-kernels bench setup setup-tests workloads clean
all: $(BUILD)/lockscope

# --- kernel programs: one source, two variants (see bpf/futex.bpf.c) ---------
BPF_DEPS := $(wildcard bpf/*.h)
BPF_FLAGS := -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -Wall -Ibpf -idirafter /usr/include/$(shell uname -m)-linux-gnu

$(BUILD)/%.modern.bpf.o: bpf/%.bpf.c $(BPF_DEPS)
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_FLAGS) -DLS_MODERN=1 -c $< -o $@
$(BUILD)/%.compat.bpf.o: bpf/%.bpf.c $(BPF_DEPS)
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_FLAGS) -DLS_MODERN=0 -c $< -o $@
$(BUILD)/%_modern.skel.h: $(BUILD)/%.modern.bpf.o
	$(Q)$(BPFTOOL) gen skeleton $< name $*_modern > $@
$(BUILD)/%_compat.skel.h: $(BUILD)/%.compat.bpf.o
	$(Q)$(BPFTOOL) gen skeleton $< name $*_compat > $@
SKELETONS := $(foreach v,modern compat,$(patsubst bpf/%.bpf.c,$(BUILD)/%_$(v).skel.h,$(wildcard bpf/*.bpf.c)))
.PRECIOUS: $(BUILD)/%.modern.bpf.o $(BUILD)/%.compat.bpf.o $(BUILD)/%_modern.skel.h $(BUILD)/%_compat.skel.h

# --- user space ---------------------------------------------------------------
SOURCES := $(filter-out userspace/main.cc,$(shell find userspace -name '*.cc'))
OBJECTS := $(SOURCES:%.cc=$(BUILD)/%.o)

$(BUILD)/%.o: %.cc | $(SKELETONS)
	$(call say,CXX,$<)
	@mkdir -p $(@D)
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/liblockscope.a: $(OBJECTS)
	$(call say,AR,$@)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(BUILD)/lockscope: $(BUILD)/userspace/main.o $(BUILD)/liblockscope.a
	$(call say,LINK,$@)
	$(Q)$(CXX) $(CXXFLAGS) $^ $(LDFLAGS) $(LDLIBS) -o $@

# --- tests ---------------------------------------------------------------------
TEST_SOURCES := $(shell find tests/unit -name "*_test.cc")
TEST_HELPERS := $(filter-out %_test.cc,$(shell find tests/unit -name "*.cc"))
TEST_OBJECTS := $(TEST_SOURCES:%.cc=$(BUILD)/%.o) $(TEST_HELPERS:%.cc=$(BUILD)/%.o)

$(BUILD)/unit-tests: $(TEST_OBJECTS) $(BUILD)/liblockscope.a
	$(call say,LINK,$@)
	$(Q)$(CXX) $(CXXFLAGS) $^ $(LDFLAGS) -lgtest $(LDLIBS) -o $@

WORKLOADS := $(patsubst tests/workloads/%.cc,$(BUILD)/workloads/%,$(wildcard tests/workloads/*.cc))
workloads: $(WORKLOADS)
$(BUILD)/workloads/%: tests/workloads/%.cc $(wildcard tests/workloads/*.h)
	$(call say,CXX,$@)
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=c++20 -O2 -g -Wall -fno-omit-frame-pointer -pthread $< -o $@

$(BUILD)/attach-rounds: $(BUILD)/tests/bpf/pthread/attach_rounds.o $(BUILD)/liblockscope.a
	$(call say,LINK,$@)
	$(Q)$(CXX) $(CXXFLAGS) $^ $(LDFLAGS) $(LDLIBS) -o $@

# The fuzz targets, one a file, with what they read from user space: see tests/fuzz/run.sh.
FUZZ_CXX ?= clang++-14
FUZZ_FLAGS := -std=c++20 -O1 -gline-tables-only -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
FUZZ_TARGETS := $(patsubst tests/fuzz/%.cc,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/*.cc))
FUZZ_SOURCES := $(filter-out %/symbolizer.cc %/symbolize_capture.cc %/debuginfod.cc,$(wildcard userspace/symbolize/*.cc)) \
  $(wildcard userspace/diagnose/*.cc userspace/diagnose/shapes/*.cc userspace/text/*.cc userspace/uprobe/*.cc) \
  $(addprefix userspace/,capture/capture_file.cc capture/stack_coverage.cc parse/messages.cc process/maps.cc \
    report/diagnosis_text.cc) \
  $(addprefix userspace/unwind/,byte_source.cc call_frame_info.cc call_frame_program.cc cfa_table.cc elf_code.cc \
    go_frames.cc)
FUZZ_OBJECTS := $(FUZZ_SOURCES:%.cc=$(BUILD)/fuzz/%.o)
FUZZ_LDLIBS := -lelf -lz -lzstd -llzma -ldw -liberty -lfmt -lZydis -lseccomp

$(BUILD)/fuzz/%.o: %.cc
	$(call say,FUZZ,$<)
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CXX) $(CPPFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c $< -o $@
$(BUILD)/fuzz/lib.a: $(FUZZ_OBJECTS)
	@rm -f $@
	$(Q)ar rcs $@ $^
$(BUILD)/fuzz/formats: $(BUILD)/fuzz/tests/fuzz/seeds/formats.o $(BUILD)/fuzz/lib.a
	$(Q)$(FUZZ_CXX) $(FUZZ_FLAGS) $^ $(FUZZ_LDLIBS) -o $@
$(FUZZ_TARGETS): $(BUILD)/fuzz/%: $(BUILD)/fuzz/tests/fuzz/%.o $(BUILD)/fuzz/lib.a
	$(Q)$(FUZZ_CXX) $(FUZZ_FLAGS) -fsanitize=fuzzer $^ $(FUZZ_LDLIBS) -o $@

# --- what people call ------------------------------------------------------------
setup:
	$(Q)scripts/setup.sh build
setup-tests:
	$(Q)scripts/setup.sh test

# The main job at once: see scripts/demo.sh.
demo: setup
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/lockscope $(BUILD)/workloads/demo_service
	$(Q)scripts/demo.sh $(BUILD)

# Everything that CI runs. The order is by what is quickest to tell that something is wrong.
test: setup-tests
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/lockscope $(BUILD)/unit-tests $(BUILD)/attach-rounds workloads
	$(Q)$(MAKE) --no-print-directory test-unit
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) test-fuzz
	$(Q)$(MAKE) --no-print-directory test-unwind
	$(Q)$(MAKE) --no-print-directory test-kernels
	$(Q)$(MAKE) --no-print-directory test-e2e

test-unit: $(BUILD)/unit-tests
	$(Q)$(BUILD)/unit-tests --gtest_brief=1

# For a few seconds each, and for FUZZ_SECONDS each.
test-fuzz: $(FUZZ_TARGETS) $(BUILD)/fuzz/formats
	$(Q)tests/fuzz/run.sh 4 $(BUILD)
fuzz: setup-tests
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) $(FUZZ_TARGETS) $(BUILD)/fuzz/formats
	$(Q)tests/fuzz/run.sh $(FUZZ_SECONDS) $(BUILD)

# Real programs under the real kernel; installs the servers that it starts.
test-e2e: $(BUILD)/lockscope $(BUILD)/attach-rounds workloads
	$(Q)scripts/install-real-programs.sh servers
	$(Q)$(PYTHON) -m pytest -q -rs tests/e2e

# The walker in the kernel against elfutils, on whatever interpreters are here.
test-unwind: $(BUILD)/liblockscope.a
	$(Q)BUILD=$(BUILD) tests/bpf/unwind/run.sh 1

test-kernels: $(BUILD)/lockscope workloads
	$(Q)tests/kernels/setup.sh
	$(Q)tests/kernels/run.sh

bench: setup
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/lockscope workloads
	$(Q)scripts/bench.sh $(BUILD)/lockscope

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
