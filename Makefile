# lockscope: see README.md. V=1 shows the commands.
BUILD ?= build
CXX   ?= g++
CC    ?= gcc
CLANG ?= clang-14
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool) bpftool)
Q := $(if $(V),,@)
say = @$(if $(V),true,printf '  %-8s %s\n' $(1) $(2))

CPPFLAGS += -Iuserspace -Ibpf -I$(BUILD)
CXXFLAGS += -std=c++20 -O2 -g -Wall -Wextra -Wno-missing-field-initializers -Wno-restrict -fno-omit-frame-pointer
LDLIBS   += -lbpf -lelf -lz -lzstd -llzma -ldw -liberty -lspdlog -lfmt -lpthread

.PHONY: all demo test test-unit bench test-kernels setup clean
all: $(BUILD)/lockscope

# --- kernel programs: one source, two variants (see bpf/futex.bpf.c) ---------
BPF_DEPS := $(wildcard bpf/*.h)
BPF_FLAGS := -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -Wall -Ibpf -I/usr/include/$(shell $(CC) -print-multiarch)

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
TEST_SOURCES := $(shell find tests/unit -name '*_test.cc')
TEST_OBJECTS := $(TEST_SOURCES:%.cc=$(BUILD)/%.o)

$(BUILD)/unit-tests: $(TEST_OBJECTS) $(BUILD)/liblockscope.a
	$(call say,LINK,$@)
	$(Q)$(CXX) $(CXXFLAGS) $^ $(LDFLAGS) -lgtest -lgtest_main $(UNIT_LDLIBS) $(LDLIBS) -o $@
UNIT_LDLIBS :=

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
