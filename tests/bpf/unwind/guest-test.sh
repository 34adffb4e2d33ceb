#!/bin/busybox sh
# In a guest of tests/kernels/run.sh: the walker on this kernel. The newer
# variant where it loads, the older one everywhere.
#
#   tests/kernels/run.sh --script tests/bpf/unwind/guest-test.sh \
#     unwind_bpf_test stacks_workload sample.modern.bpf.o sample.compat.bpf.o
for variant in modern compat; do
  echo "== $variant on $(uname -r)"
  unwind_bpf_test /bin/sample.$variant.bpf.o 4 -- /bin/stacks_workload 2>&1 |
    grep -v '^libbpf: .*R[0-9]' | tail -n 25
done
