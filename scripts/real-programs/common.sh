# What the scripts in this folder share. Sourced, not run. Each of them is called like this:
#
#   NAME.sh start DIR           starts the program with everything it writes under DIR, on a Unix
#                               socket or the loopback, ready for load; prints PID=<its pid>
#   NAME.sh load DIR SECONDS    a bounded load, in the foreground; prints what the load generator
#                               measured, and last OPS_PER_SECOND=<number>
#   NAME.sh stop DIR            stops it by PID and removes what it wrote; fine if nothing runs
#
# A started program is stopped anyway after LIMIT seconds (environment, default 900). The exit code
# is 0, 1 for failure, 2 for bad usage, 77 when a package is missing.
set -euo pipefail

LIMIT=${LIMIT:-900}
THREADS=${THREADS:-}

[ $# -ge 2 ] || { echo "usage: $0 start DIR | load DIR SECONDS | stop DIR" >&2; exit 2; }
action=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
seconds=${3:-10}
home=$dir/$(basename "$0" .sh).running   # all that this program writes
log=$home/log

fail() {
  echo "$(basename "$0"): $*" >&2
  [ -s "$log" ] && tail -15 "$log" >&2
  exit 1
}

need() {
  local program
  for program; do
    command -v "$program" > /dev/null && continue
    echo "$(basename "$0"): $program is missing: run scripts/install-real-programs.sh servers" >&2
    exit 77
  done
}

# The first of these users that exists; ourselves, unless we are root.
pick_user() {
  [ "$(id -u)" -eq 0 ] || { id -un; return; }
  local user
  for user; do
    id "$user" > /dev/null 2>&1 && { echo "$user"; return; }
  done
  echo nobody
}

# as USER COMMAND...: replaces this (sub)shell by the command, so that $! is its PID.
as() {
  local user=$1
  shift
  export HOME=$home
  # The directory is entered as the user: that it may is part of the question.
  local enter='cd "$HOME" && exec "$@"'
  [ "$(id -un)" = "$user" ] && exec sh -c "$enter" sh "$@"
  exec setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups -- sh -c "$enter" sh "$@"
}

make_home() {
  [ -e "$home" ] && fail "already running, or not cleaned up: $home"
  mkdir -p "$home"
  : > "$log"
  chown -R "$1" "$home"
  # Temporary directories are their maker's alone; this one must let the server's user through.
  [ "$(id -un)" = "$1" ] || chmod o+x "$dir"
  (as "$1" true) 2> /dev/null || { rm -rf "$home"; fail "$1 cannot reach $home"; }
  trap 'stop_program' EXIT   # until keep_running
}

# Field 22 of /proc/PID/stat: with the PID it names one process for ever.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2> /dev/null | cut -d' ' -f20; }

alive() {
  [ -s "$home/pid" ] || return 1
  local pid started
  read -r pid started < "$home/pid"
  [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] &&
    [ "$(sed 's/.*) //' "/proc/$pid/stat" 2> /dev/null | cut -c1)" != Z ]
}

remember() { echo "$1 $(start_time "$1")" > "$home/pid"; }

# wait_until SECONDS COMMAND...: polls until the command succeeds or the program dies.
wait_until() {
  local limit=$(($1 * 10)) i
  shift
  for ((i = 0; i < limit; i++)); do
    "$@" > /dev/null 2>&1 && return 0
    alive || return 1
    sleep 0.1
  done
  return 1
}

keep_running() {
  local pid
  read -r pid _ < "$home/pid"
  trap - EXIT
  # The watchdog: forgets nothing even if whoever started this is gone.
  (
    exec > /dev/null 2>&1 < /dev/null
    trap - EXIT
    set +e
    for ((i = 0; i < LIMIT; i++)); do
      alive || exit 0
      sleep 1
    done
    alive && kill -TERM "$pid"
    sleep 5
    alive && kill -KILL "$pid"
  ) &
  disown
  echo "PID=$pid"
}

stop_program() {
  local i pid
  if alive; then
    read -r pid _ < "$home/pid"
    kill "-${STOP_SIGNAL:-TERM}" "$pid" 2> /dev/null || true
    for ((i = 0; i < 150; i++)); do
      alive || break
      sleep 0.1
    done
    alive && kill -KILL "$pid" 2> /dev/null
    while alive; do sleep 0.1; done
  fi
  rm -rf "$home"
  rmdir "$dir" 2> /dev/null || true
}

require_running() { alive || fail "not running in $dir"; }

dispatch() {
  case $action in
    start) start ;;
    load) require_running; load ;;
    stop) stop_program ;;
    *) echo "usage: $0 start DIR | load DIR SECONDS | stop DIR" >&2; exit 2 ;;
  esac
}
