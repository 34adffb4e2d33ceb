#!/bin/bash
# PostgreSQL under pgbench: processes, not threads, that wait on semaphores in shared memory. PID is
# the postmaster's; the backends are its children. Usage: see common.sh.
. "$(dirname "$0")/common.sh"
bin=$(ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -V | tail -1)
STOP_SIGNAL=INT   # "fast" shutdown: ends the sessions, checkpoints, exits

user=$(pick_user postgres)

run() { (as "$user" timeout $((seconds + 60)) "$bin/$1" "${@:2}"); }

start() {
  need "${bin:-/usr/lib/postgresql/15/bin}"/{postgres,initdb,pgbench,pg_isready}
  make_home "$user"
  chmod 700 "$home"
  run initdb -D "$home/data" -A trust -N --no-locale -E UTF8 >> "$log" 2>&1 || fail "initdb failed"
  (
    as "$user" "$bin/postgres" -D "$home/data" -k "$home" -c listen_addresses= \
      -c unix_socket_permissions=0700 -c shared_buffers=128MB -c max_connections=100 >> "$log" 2>&1
  ) &
  remember $!
  wait_until 30 run pg_isready -h "$home" || fail "postgres did not start"
  run pgbench -h "$home" -i -s "${SCALE:-4}" -q postgres >> "$log" 2>&1 || fail "pgbench -i failed"
  keep_running
}

load() {
  local out
  out=$(run pgbench -h "$home" -c "${THREADS:-16}" -j 2 -T "$seconds" postgres 2>&1) ||
    fail "pgbench: $out"
  grep -E '^(number of transactions actually|latency average)' <<< "$out"
  sed -n 's/^tps = \([0-9.]*\) .*/OPS_PER_SECOND=\1/p' <<< "$out"
}

dispatch
