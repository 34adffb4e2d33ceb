#!/bin/bash
# What tracing costs the traced program: lockscope beside the alternatives, in one run, as ratios to
# the bare program. Every traced run has a bare run of its own just before it; a ratio is of such a
# pair, and what is printed is the median of the rounds with the smallest and the largest.
#
#   scripts/bench.sh LOCKSCOPE [--rounds N] [--seconds S] [--workloads LIST] [--contenders LIST]
#
# Workloads (comma-separated; default pingpong,memcached,stacks,pairs,budget):
#   pingpong       condition-variable ping-pong of two threads on ONE CPU: each hand-over is a wake,
#                  a wait and a context switch, and nothing else: the worst case
#   pingpong-free  the same on any CPU: a hand-over then contains waking up an idle CPU
#   memcached      memcached under memcaslap, at saturation, for S + 2 seconds
#   stacks         no contenders: what walking a stack of 10 and of 30 frames adds to a futex call,
#                  unwind tables of mariadbd and LLVM, 10,000 addresses of mariadbd and libc named
#   pairs          a thread that only locks and unlocks a mutex that nobody else wants, with probes at
#                  both calls: lockscope's pthread tier, and bpftrace's entry and return probes
#   budget         the same thread for 5 times as long, with the pthread tier and --budget 1
# Contenders: lockscope, lockscope-holder (with the holder tier), offcputime, offcputime-bpfcc,
# bpftrace, perf.
#
# Installs what it needs from Debian. Needs root, for tracing. tracefs and debugfs, where they are
# not mounted, are mounted for the tracers alone, in a mount namespace of their own.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }

[ $# -ge 1 ] || usage
lockscope=$1
shift
rounds=5 seconds=2 workloads=pingpong,memcached,stacks,pairs,budget
contenders=lockscope,lockscope-holder,offcputime,offcputime-bpfcc,bpftrace,perf
while [ $# -ge 2 ]; do
  case $1 in
    --rounds) rounds=$2 ;;
    --seconds) seconds=$2 ;;
    --workloads) workloads=$2 ;;
    --contenders) contenders=$2 ;;
    *) usage ;;
  esac
  shift 2
done
[ $# -eq 0 ] || usage
[ "$(id -u)" -eq 0 ] || { echo "$0: tracing needs root" >&2; exit 77; }
case $lockscope in /*) ;; *) lockscope=$PWD/$lockscope ;; esac
[ -x "$lockscope" ] || { echo "$0: no such program: $lockscope" >&2; exit 1; }
IFS=, read -ra workloads <<< "$workloads"
IFS=, read -ra contenders <<< "$contenders"

"$here/install-real-programs.sh" all

work=$(mktemp -d)
chmod 711 "$work"   # the servers run as other users, in directories below
results=$work/results   # workload contender bare traced
failures=$work/failures # workload contender reason
: > "$results"
: > "$failures"
tracer= program=
quit() { [ -n "$1" ] && kill "-$2" "$1" 2> /dev/null && wait "$1" 2> /dev/null; return 0; }
clean_up() {
  trap - EXIT INT TERM
  quit "$tracer" KILL
  quit "$program" KILL
  LIMIT=1 "$here/real-programs/memcached.sh" stop "$work/memcached" > /dev/null 2>&1 || true
  LIMIT=1 "$here/real-programs/mariadb.sh" stop "$work/mariadb" > /dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT
trap 'clean_up; exit 130' INT TERM

# --- tracers ---------------------------------------------------------------------------------------

# Runs a tracer where tracefs and debugfs are mounted; execs all the way, so its PID is ours to know.
with_tracefs() {
  exec unshare -m sh -c '
    mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
    mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
    exec "$@"' sh "$@"
}

bpftrace_program='
tracepoint:syscalls:sys_enter_futex /pid == TARGET/ { @start[tid] = nsecs; }
tracepoint:syscalls:sys_exit_futex /@start[tid]/ {
  @wait_ns[ustack] = sum(nsecs - @start[tid]);
  delete(@start[tid]);
}
END { clear(@start); }'

# As bcc's tools do it: when asked, when acquired, when released.
pairs_program='
uprobe:LIBC:pthread_mutex_lock { @asked[tid] = nsecs; }
uretprobe:LIBC:pthread_mutex_lock { @acquired[tid] = nsecs; }
uprobe:LIBC:pthread_mutex_unlock { @held_ns = hist(nsecs - @acquired[tid]); }'

# run_tracer CONTENDER PID: in place of the (sub)shell. All of them with user stacks, except perf
# trace -s, which has none.
run_tracer() {
  local limit=120
  case $1 in
    lockscope-pthread)
      exec "$lockscope" record --tiers futex,pthread --budget 100 -p "$2" -d $limit \
        -o "$work/capture" ;;
    lockscope-budget)
      exec "$lockscope" record --tiers futex,pthread --budget 1 -p "$2" -d $limit \
        -o "$work/capture" ;;
    bpftrace-pairs) with_tracefs bpftrace -p "$2" -e "${pairs_program//LIBC/$(libc_of "$2")}" ;;
    lockscope-holder)
      exec "$lockscope" record --tiers futex,holder -p "$2" -d $limit -o "$work/capture" ;;
    lockscope) exec "$lockscope" record -p "$2" -d $limit -o "$work/capture" ;;
    offcputime) with_tracefs /usr/sbin/offcputime -p "$2" $limit ;;
    offcputime-bpfcc) with_tracefs /usr/sbin/offcputime-bpfcc -f -p "$2" $limit ;;
    bpftrace) with_tracefs bpftrace -e "${bpftrace_program//TARGET/$2}" ;;
    perf) with_tracefs perf trace -s -p "$2" ;;
  esac
}

attached() {
  case $1 in
    lockscope*) grep -q recording "$work/tracer.err" ;;
    *) ls -l "/proc/$tracer/fd" 2> /dev/null | grep -qE 'perf_event|bpf[_-]link|raw-tracepoint' ;;
  esac
}

# start_tracer CONTENDER PID: sets $tracer; fails if it does not attach.
start_tracer() {
  local i
  rm -f "$work/capture"
  : > "$work/tracer.err"
  (run_tracer "$@") > "$work/tracer.out" 2> "$work/tracer.err" < /dev/null &
  tracer=$!
  for ((i = 0; i < 300; i++)); do
    if attached "$1"; then
      sleep 1   # its other probes
      return 0
    fi
    kill -0 "$tracer" 2> /dev/null || break
    sleep 0.1
  done
  return 1
}

# stop_tracer CONTENDER: ends it as Ctrl-C would, unless it is one that ends with its target; what it
# then prints is not timed. Its word counts only if it saw something.
stop_tracer() {
  local i
  if [[ $1 != lockscope* ]] || [ -n "${memcached_pid:-}" ]; then
    kill -INT "$tracer" 2> /dev/null || true
  fi
  for ((i = 0; i < 600; i++)); do
    kill -0 "$tracer" 2> /dev/null || break
    sleep 0.1
  done
  quit "$tracer" KILL
  tracer=
  case $1 in
    lockscope*) [ -s "$work/capture" ] ;;
    *) [ -s "$work/tracer.out" ] || [ -s "$work/tracer.err" ] ;;
  esac
}

# --- workloads: each prints operations a second, traced by $1 unless that is "bare" ------------------

pingpong() {
  local pin=()
  [ "$2" = pinned ] && pin=(taskset -c "$(($(nproc) - 1))")
  rm -f "$work/ready" "$work/go"
  "${pin[@]}" "$work/timed_cond" --mode pingpong --work-us 0 --own-clock off --policy batch \
    --seconds "$seconds" --ready-file "$work/ready" --go-file "$work/go" > "$work/out" &
  program=$!
  while [ ! -e "$work/ready" ]; do sleep 0.05; done
  if [ "$1" != bare ] && ! start_tracer "$1" "$program"; then
    quit "$program" KILL
    program=
    return 1
  fi
  : > "$work/go"
  wait "$program"
  program=
  [ "$1" = bare ] || stop_tracer "$1" || return 1
  rate=$(sed 's/.*"handovers_per_s": \([0-9]*\).*/\1/' "$work/out")
}

memcached() {
  if [ "$1" != bare ] && ! start_tracer "$1" "$memcached_pid"; then return 1; fi
  "$here/real-programs/memcached.sh" load "$work/memcached" $((seconds + 2)) > "$work/out"
  [ "$1" = bare ] || stop_tracer "$1" || return 1
  rate=$(sed -n 's/^OPS_PER_SECOND=//p' "$work/out")
}

# Prints its figures itself.
stacks() {
  local build llvm
  build=$(dirname "$lockscope")
  printf '\nstacks: a futex call that wakes nobody, the quickest of 3 x 200,000\n'
  BUILD=$build "$here/../tests/bpf/unwind/run.sh" cost | awk '
    { if (!($1 in best) || $2 < best[$1]) best[$1] = $2 }
    $1 == "cost_walk" && ++rounds == 3 {
      sub(/\(/, "", $4)
      printf "  from %d frames: untraced %.0f ns, counted at a tracepoint %.0f ns, its stack walked " \
             "%.0f ns: %.0f ns a stack\n", $4, best["bare"], best["cost_count"], best["cost_walk"],
             best["cost_walk"] - best["cost_count"]
      rounds = 0
      delete best
    }'
  g++ -std=c++20 -O2 -I"$here/../userspace" -I"$here/../bpf" -o "$work/stack_bench" \
    "$here/../tests/bench/stack_bench.cc" "$build/liblockscope.a" \
    -lbpf -lelf -lz -lzstd -llzma -ldw -liberty -lseccomp -lspdlog -lfmt -lZydis -lpthread
  printf '\nstacks: unwind tables\n'
  llvm=$(find /usr/lib -name 'libLLVM-*.so*' -type f 2> /dev/null | sort -V | tail -1)
  "$work/stack_bench" tables /usr/sbin/mariadbd ${llvm:+"$llvm"}
  [ -n "$llvm" ] || echo "  libLLVM: not measured, there is none here (bpftrace brings one)"
  printf '\nstacks: names\n'
  "$work/stack_bench" symbols \
    "$("$here/real-programs/mariadb.sh" start "$work/mariadb" | sed -n 's/^PID=//p')"
  "$here/real-programs/mariadb.sh" stop "$work/mariadb"
}

libc_of() {
  sed -n 's|.* \(/.*/libc\.so\.6\)$|\1|p' "/proc/$1/maps" | head -1
}

# Sets $ns, of a pair; traced by $1 unless that is "bare".
lock_loop() {
  rm -f "$work/ready" "$work/go"
  "$(dirname "$lockscope")/workloads/lock_loop" --seconds "$seconds" --ready-file "$work/ready" \
    --go-file "$work/go" > "$work/out" &
  program=$!
  while [ ! -e "$work/ready" ]; do sleep 0.05; done
  if [ "$1" != bare ] && ! start_tracer "$1" "$program"; then
    quit "$program" KILL
    program=
    return 1
  fi
  : > "$work/go"
  wait "$program"
  program=
  [ "$1" = bare ] || stop_tracer "$1" || return 1
  ns=$(sed 's/.*"ns_per_pair": \([0-9.]*\).*/\1/' "$work/out")
}

# Prints its figures itself.
pairs() {
  local round bare ours
  for ((round = 0; round < rounds; round++)); do
    lock_loop bare && bare=$ns && lock_loop lockscope-pthread && ours=$ns && lock_loop bpftrace-pairs &&
      echo "$bare $ours $ns"
  done | sort -n -k 2 | awk '
    { bare[NR] = $1; ours[NR] = $2; theirs[NR] = $3 }
    END {
      if (!NR) { print "\npairs: not measured"; exit }
      m = int((NR + 1) / 2)
      printf "\npairs: a lock and an unlock that nobody waits for, median of %d\n", NR
      printf "  bare %.0f ns, lockscope --tiers futex,pthread %.0f ns, bpftrace %.0f ns: %.1f times less " \
             "added\n", bare[m], ours[m], theirs[m], (theirs[m] - bare[m]) / (ours[m] - bare[m])
    }'
}

# Prints its figures itself.
budget() {
  local round bare seconds=$((seconds * 5))
  for ((round = 0; round < rounds; round++)); do
    lock_loop bare && bare=$ns && lock_loop lockscope-budget && echo "$bare $ns"
  done | awk '{ print $2 / $1 }' | sort -n | awk '
    { ratio[NR] = $1 }
    END {
      if (!NR) { print "\nbudget: not measured"; exit }
      printf "\nbudget: a thread that only locks and unlocks, with --budget 1: %.3fx the time " \
             "(%.3f - %.3f), median of %d\n", ratio[int((NR + 1) / 2)], ratio[1], ratio[NR], NR
    }'
}

measure() {
  case $1 in
    pingpong) pingpong "$2" pinned ;;
    pingpong-free) pingpong "$2" free ;;
    memcached) memcached "$2" ;;
    *) echo "$0: no such workload: $1" >&2; exit 2 ;;
  esac
}

# --- the run -----------------------------------------------------------------------------------------

summary() {
  awk -v workload="$1" -v unit="$2" '
    function sorted(list, n,   i, j, t) {
      for (i = 2; i <= n; i++)
        for (j = i; j > 1 && list[j - 1] > list[j]; j--) {
          t = list[j]; list[j] = list[j - 1]; list[j - 1] = t
        }
    }
    function median(list, n) {
      return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
    }
    function row(name, rates, ratios, n,   text) {
      sorted(rates, n)
      text = sprintf("  %-18s %12.0f  %12.0f - %-12.0f", name, median(rates, n), rates[1], rates[n])
      if (name == "bare") { print text; return }
      sorted(ratios, n)
      printf "%s %6.3fx  (%.3f - %.3f)   %6.3fx\n", text, median(ratios, n), ratios[1], ratios[n],
             1 / median(ratios, n)
    }
    $1 == workload {
      bare[++bares] = $3
      if (!($2 in count)) order[++names] = $2
      i = ++count[$2]; traced[$2, i] = $4; cost[$2, i] = $3 / $4
    }
    END {
      printf "\n%s (%s)\n", workload, unit
      printf "  %-18s %12s  %27s %7s  %-17s %8s\n", "", "median", "smallest - largest", "time",
             "(min - max)", "rate"
      if (bares) row("bare", bare, none, bares)
      for (k = 1; k <= names; k++) {
        n = count[order[k]]
        split("", rates); split("", ratios)
        for (i = 1; i <= n; i++) { rates[i] = traced[order[k], i]; ratios[i] = cost[order[k], i] }
        row(order[k], rates, ratios, n)
      }
    }' "$results"
  sed -n "s/^$1 \([^ ]*\) \(.*\)/  \1: \2/p" "$failures"
}

g++ -std=c++20 -O2 -g -fno-omit-frame-pointer -pthread \
  -o "$work/timed_cond" "$here/../tests/workloads/timed_cond.cc"

echo "kernel $(uname -r), $(nproc) CPUs, load average before: $(cut -d' ' -f1-3 /proc/loadavg)"
echo "$rounds rounds of $seconds s; time = bare / traced rate, so 1.25x is a quarter slower;" \
     "rate = traced / bare"
for workload in "${workloads[@]}"; do
  if [ "$workload" = stacks ]; then stacks; continue; fi
  if [ "$workload" = pairs ]; then pairs; continue; fi
  if [ "$workload" = budget ]; then budget; continue; fi
  if [ "$workload" = memcached ]; then
    memcached_pid=$("$here/real-programs/memcached.sh" start "$work/memcached" | sed -n 's/^PID=//p')
  fi
  measure "$workload" bare   # warm
  declare -A out=()
  for ((round = 0; round < rounds; round++)); do
    for ((k = 0; k < ${#contenders[@]}; k++)); do
      # Another one goes first each round.
      contender=${contenders[(k + round) % ${#contenders[@]}]}
      [ -z "${out[$contender]:-}" ] || continue
      [ -t 2 ] && printf '\r%s, round %d: %-20s' "$workload" $((round + 1)) "$contender" >&2
      measure "$workload" bare
      bare=$rate
      if measure "$workload" "$contender"; then
        echo "$workload $contender $bare $rate" >> "$results"
      else
        quit "$tracer" KILL
        tracer=
        out[$contender]=1
        echo "$workload $contender does not run here: $(grep -vE '^ |^Traceback' \
          "$work/tracer.err" | tail -1 | cut -c1-120)" >> "$failures"
      fi
    done
  done
  unset out
  [ -t 2 ] && printf '\r%60s\r' '' >&2
  case $workload in
    memcached)
      summary memcached "requests/s"
      "$here/real-programs/memcached.sh" stop "$work/memcached" ;;
    *) summary "$workload" "hand-overs/s" ;;
  esac
done
