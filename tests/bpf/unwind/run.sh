#!/bin/bash
# Builds the walker's test and runs it on what is on this machine: our own
# program without frame pointers, interpreters. Needs root, and liblockscope.a.
#
# usage: run.sh [SECONDS]     against elfutils: each command, each variant of the programs
#        run.sh cost          what a walk of 10 and of 30 frames adds to a system call
set -euo pipefail
cd "$(dirname "$0")/../../.."
seconds=${1:-3}
out=${BUILD:-build}/tests/bpf/unwind
here=tests/bpf/unwind
mkdir -p "$out"

g++ -std=c++20 -O1 -g -Wall -Wextra -Wno-missing-field-initializers -Iuserspace -Ibpf -I$here \
  $here/*.cc "${BUILD:-build}/liblockscope.a" -o "$out/unwind_bpf_test" -lbpf -lelf -ldw
for workload in stacks futex_cost; do
  gcc -O2 -fomit-frame-pointer -fno-optimize-sibling-calls -Wall -pthread \
    $here/${workload}_workload.c -o "$out/${workload}_workload"
done
for variant in 1:modern 0:compat; do
  clang-14 -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -idirafter /usr/include/x86_64-linux-gnu \
    -Wall -Ibpf -DLS_MODERN=${variant%:*} -c $here/sample.bpf.c -o "$out/sample.${variant#*:}.bpf.o"
done

if [ "$seconds" = cost ]; then
  for depth in 10 30; do
    "$out/unwind_bpf_test" "$out/sample.modern.bpf.o" cost -- "$out/futex_cost_workload" $depth 200000
  done
  exit
fi

status=0
check() {
  command -v "$1" >/dev/null || { echo "SKIP: no $1 here"; return 0; }
  local variant code
  for variant in modern compat; do
    echo "== $(basename "$1") ($variant)"
    code=0
    "$out/unwind_bpf_test" "$out/sample.$variant.bpf.o" "$seconds" -- "$@" || code=$?
    [ $code -eq 0 ] || [ $code -eq 77 ] || status=1   # 77: it said what is missing
  done
}
check "$out/stacks_workload"
check "$(python3 -c 'import sys; print(sys.executable)' 2>/dev/null || echo python3)" -c '
import json, threading, time
def deep(n): return deep(n - 1) if n else json.loads(json.dumps({"a": [1, 2, 3] * 50}))
def work():
    while True: deep(20); time.sleep(0.0003)
for _ in range(4): threading.Thread(target=work).start()'
check perl -e 'while (1) { my %h; $h{$_} = sprintf("%d", $_ * 3) for 1 .. 2000; select undef, undef, undef, 0.0002 }'
check node -e 'setInterval(() => { let a = []; for (let i = 0; i < 20000; i++) a.push(Math.random() + "x"); a.sort() }, 1)'
exit $status
