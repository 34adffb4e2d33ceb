#!/bin/bash
# Runs the fuzz targets, two at a time, each for SECONDS or until it finds something: first on what
# was found before (tests/fuzz/found/TARGET), then from the seeds and what earlier runs collected.
#
# usage: run.sh SECONDS BUILD-FOLDER [TARGET]...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
seconds=$1 out=$2/fuzz
shift 2
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=($(cd "$here" && basename -s .cc -a ./*.cc))

"$here/seeds/make.sh" "$out/formats" "$out/seeds"

# libdw keeps what a damaged file makes it forget; the sandbox's memory is limited.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

fuzz() {
  local target=$1
  local log=$out/$target.log
  mkdir -p "$out/corpus/$target" "$out/found/$target"
  local found=("$here/found/$target"/*)
  if [ -e "${found[0]}" ] && ! "$out/$target" "${found[@]}" >"$log" 2>&1; then
    echo "fuzz: $target: FAILED on an input of tests/fuzz/found; see $log"
    return 1
  fi
  if ! "$out/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=65536 \
      -artifact_prefix="$out/found/$target/" -print_final_stats=1 \
      "$out/corpus/$target" "$out/seeds/$target" >"$log" 2>&1; then
    grep -m3 -E 'ERROR|runtime error|SUMMARY' "$log" || tail -3 "$log"
    echo "fuzz: $target: FAILED; the input is in $out/found/$target, the rest in $log"
    return 1
  fi
  echo "fuzz: $target: nothing in $(sed -n 's/.*number_of_executed_units: *//p' "$log") runs"
}

status=0
running=0
for target in "${targets[@]}"; do
  fuzz "$target" &
  if [ $((running += 1)) -ge 2 ]; then
    wait -n || status=1
    running=$((running - 1))
  fi
done
while [ $running -gt 0 ]; do
  wait -n || status=1
  running=$((running - 1))
done
exit $status
