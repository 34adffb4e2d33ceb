#!/bin/bash
# memcached with four threads, under memcaslap: C without frame pointers; idle workers in epoll, item
# and LRU locks (pthread mutexes) now and then. Usage: see common.sh.
. "$(dirname "$0")/common.sh"

start() {
  need memcached memcaslap
  local user
  user=$(pick_user memcache)
  make_home "$user"
  # An unused port of the kernel's choice; memcaslap can't use a Unix socket.
  (
    export MEMCACHED_PORT_FILENAME=$home/port
    as "$user" memcached -l 127.0.0.1 -p -1 -U 0 -m 64 -t "${THREADS:-4}" -c 1024 >> "$log" 2>&1
  ) &
  remember $!
  wait_until 10 test -s "$home/port" || fail "memcached did not start"
  keep_running
}

load() {
  local port out
  port=$(sed -n 's/^TCP INET: //p' "$home/port")
  out=$(timeout $((seconds + 20)) memcaslap -s "127.0.0.1:$port" -T 2 -c "${CONNECTIONS:-16}" \
    -t "${seconds}s" -X 100 2>&1) || fail "memcaslap: $out"
  grep '^Run time' <<< "$out"
  sed -n 's/.* TPS: \([0-9]*\) .*/OPS_PER_SECOND=\1/p' <<< "$out"
}

dispatch
