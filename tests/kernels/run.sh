#!/bin/bash
# Boots Debian's kernels in QEMU, runs a test in each, prints a line a kernel.
#
# usage: run.sh [--only 5.10|6.1|6.12|sid]... [--script FILE] [--check FILE] BINARY...
#   BINARY    goes to /bin of the guest, with the shared libraries it needs (default,
#             if the script is the default one: what that one runs, from build/)
#   --script  what a guest runs, under busybox sh (default: guest-test.sh here)
#   --check   run on the host with the folder of what a guest handed back; prints
#             one line; its exit code decides (default: check.py here, if the
#             script is the default one)
#   KERNEL_CACHE=build/kernels  KERNEL_SECONDS=180 (a guest's limit)  KERNEL_JOBS=2
# Everything a guest said is kept in CACHE/VERSION/run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export KERNEL_CACHE=${KERNEL_CACHE:-$here/../../build/kernels}
# Only against hangs: a guest takes 30 to 60 s on two idle cores, three times that on busy ones.
limit=${KERNEL_SECONDS:-180}
at_once=${KERNEL_JOBS:-2}

versions=() binaries=() script=$here/guest-test.sh check=$here/check.py
while [ $# -gt 0 ]; do
  case $1 in
    --only) versions+=("$2"); shift 2 ;;
    --script) script=$2 check=; shift 2 ;;
    --check) check=$2; shift 2 ;;
    -*) echo "usage: run.sh [--only VERSION]... [--script FILE] [--check FILE] BINARY..." >&2; exit 2 ;;
    *) binaries+=("$1"); shift ;;
  esac
done
[ ${#versions[@]} -gt 0 ] || versions=(5.10 6.1 6.12 sid)
build=$here/../../build
if [ ${#binaries[@]} = 0 ] && [ "$script" = "$here/guest-test.sh" ]; then
  binaries=("$build/lockscope" "$build/workloads/timed_mutex")
fi
for b in ${binaries[@]+"${binaries[@]}"}; do
  [ -r "$b" ] || { echo "kernels: no such file: $b" >&2; exit 1; }
done

"$here/setup.sh"
"$here/fetch.sh" "${versions[@]}" || true   # what is missing is counted below
cache=$(cd "$KERNEL_CACHE" && pwd)

work=$(mktemp -d)
# QEMU removes its pid file when it ends: what is left there still runs (Ctrl-C).
stop() {
  for f in "$work"/*.pid; do [ ! -s "$f" ] || kill "$(cat "$f")" 2>/dev/null || true; done
  rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

# --- the initramfs: one for all kernels ---------------------------------------
root=$work/root
mkdir -p "$root/bin"
cp /bin/busybox "$root/bin/busybox"
cp "$here/init.sh" "$root/init"
cp "$script" "$root/guest-test.sh"
chmod 755 "$root/init"
for b in ${binaries[@]+"${binaries[@]}"}; do
  # Symbols stay, they are tested; DWARF would only slow the boot.
  strip --strip-debug -o "$root/bin/$(basename "$b")" "$b" 2>/dev/null || cp "$b" "$root/bin/"
  libraries=$(ldd "$b" 2>/dev/null || true)
  if grep -q 'not found' <<<"$libraries"; then
    echo "kernels: $b: $(grep -m1 'not found' <<<"$libraries")" >&2
    exit 1
  fi
  for library in $(grep -o '/[^ ]*' <<<"$libraries" || true); do
    cp -L --parents -u "$library" "$root"
  done
done
# Not compressed: emulated CPUs unpack slowly, and QEMU loads it at once.
(cd "$root" && find . | cpio --quiet -o -H newc --owner 0:0) >"$work/initramfs"

# --- a guest --------------------------------------------------------------------
# Watchdogs and stall detectors are off because they are timing assertions: a guest
# gets whatever the host has left. Everything else that a kernel complains about fails.
#
# thread=single: with a host thread for each CPU, QEMU 7.2 can translate code while another
# CPU patches it, and keeps the half-patched int3 for good: an Oops in every tenth capture on
# the newest kernel, because attaching to a tracepoint patches a branch. With one thread the
# CPUs still interleave; races between them are for the tests on the host. Two guests at a
# time keep two cores as busy either way.
# -cx16: a double fault, once, from flags that its cmpxchg16b spoiled in the slab allocator,
# which does without. tsc=unstable: the clock does not change under a running capture.
command_line='console=ttyS0 loglevel=5 panic=-1 tsc=unstable nowatchdog rcupdate.rcu_cpu_stall_suppress=1'
complaint='BUG[: ]|Oops|WARNING:|Kernel panic|general protection fault|Call Trace:|unable to handle'

boot() {
  local version=$1 out=$2
  timeout -k 5 "$limit" qemu-system-x86_64 \
    -M q35 -accel tcg,thread=single,tb-size=256 -cpu max,-cx16 -smp 2 -m 768 \
    -nodefaults -no-user-config -display none -no-reboot \
    -pidfile "$work/$version.pid" -kernel "$cache/$version/vmlinuz" -initrd "$work/initramfs" -append "$command_line" \
    -serial "file:$out/console.log" -serial "file:$out/serial.log" \
    </dev/null >"$out/qemu.log" 2>&1
}

# guest VERSION: leaves CACHE/VERSION/run/line, and /failed if it failed.
guest() {
  local version=$1 out=$cache/$1/run name why= code=0 qemu=0 said= again=
  local from=$EPOCHREALTIME seconds
  rm -rf "$out"
  mkdir -p "$out"
  boot "$version" "$out" || qemu=$?
  touch "$out/console.log" "$out/serial.log"
  # A guest that never reached init ran nothing of ours: the emulator's fault, told, and
  # tried once more. From the first line on nothing is tried twice.
  if ! grep -q '^@@guest START' "$out/serial.log"; then
    mkdir "$out/first-boot"
    mv "$out"/*.log "$out/first-boot/"
    again=' (booted twice: the first never reached init)'
    qemu=0
    boot "$version" "$out" || qemu=$?
    touch "$out/console.log" "$out/serial.log"
  fi
  seconds=$(awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
  name=$(sed -n 's/^@@guest START //p' "$out/serial.log" | head -n 1)
  python3 "$here/unpack.py" "$out/serial.log" "$out" || code=$?
  if grep -qE "$complaint" "$out/console.log"; then
    why="the kernel complained: $(grep -m1 -E "$complaint" "$out/console.log" | tr -d '\r')"
  elif [ $qemu = 124 ] || [ $qemu = 137 ]; then why="not done in $limit s"
  elif [ $qemu != 0 ]; then why="qemu: exit code $qemu: $(tail -n 1 "$out/qemu.log")"
  elif [ $code = 125 ]; then why="the guest stopped before the end"
  elif [ $code != 0 ]; then why="the test's exit code is $code"
  elif [ -n "$check" ]; then
    said=$("$check" "$out" 2>&1) || why="check failed"
  fi
  if [ -z "$why" ]; then
    printf '  %-5s %-26s ok      %5s s  %s%s\n' "$version" "$name" "$seconds" "$said" "$again" >"$out/line"
    return
  fi
  touch "$out/failed"
  {
    printf '  %-5s %-26s FAILED  %5s s  %s%s\n' "$version" "${name:-?}" "$seconds" "$why" "$again"
    [ -z "$said" ] || sed 's/^/        check: /' <<<"$said"
    tail -n 60 "$out/output" | sed 's/^/        guest: /'
    case $why in
      "the test's exit code"*|"check failed") ;;
      *) tail -n 60 "$out/console.log" | tr -d '\r' | sed 's/^/        console: /' ;;
    esac
  } >"$out/line"
}

# --- all of them, a few at a time -----------------------------------------------
passed=0 failed=0 skipped=0 running=0
started=()
for v in "${versions[@]}"; do
  if [ ! -s "$cache/$v/vmlinuz" ]; then
    reason=$(cat "$cache/$v/missing" 2>/dev/null || echo 'not fetched')
    # Suites rotate out of the mirror: Debian 12 runs without these two.
    case $v in
      5.10|sid) printf '  %-5s %-26s SKIPPED          %s\n' "$v" "" "$reason"
                skipped=$((skipped + 1)) ;;
      *) printf '  %-5s %-26s FAILED           %s\n' "$v" "" "no such kernel: $reason"
         failed=$((failed + 1)) ;;
    esac
    continue
  fi
  if [ $running -ge "$at_once" ]; then
    wait -n || true
    running=$((running - 1))
  fi
  { guest "$v" && cat "$cache/$v/run/line"; } &
  running=$((running + 1))
  started+=("$v")
done
wait
for v in ${started[@]+"${started[@]}"}; do
  if [ -s "$cache/$v/run/line" ] && [ ! -e "$cache/$v/run/failed" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
  fi
done
echo "kernels: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
