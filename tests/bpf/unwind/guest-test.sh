#!/bin/busybox sh
# In a guest of tests/kernels/run.sh: the walker on this kernel. The older variant
# must work everywhere, the newer one wherever it loads.
#
#   tests/kernels/run.sh --script tests/bpf/unwind/guest-test.sh \
#     unwind_bpf_test stacks_workload sample.modern.bpf.o sample.compat.bpf.o
status=0
for variant in modern compat; do
  echo "== $variant on $(uname -r)"
  unwind_bpf_test /bin/sample.$variant.bpf.o 8 -- /bin/stacks_workload >/tmp/said 2>&1
  code=$?
  tail -n 30 /tmp/said
  case $(uname -r) in 5.10.*) [ $variant = modern ] && continue ;; esac
  [ $code = 0 ] || status=1
done
exit $status
