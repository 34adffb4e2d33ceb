#!/bin/bash
# Redis with I/O threads, an append-only file and its background threads (fsync, lazy free), under
# redis-benchmark: C. Usage: see common.sh.
. "$(dirname "$0")/common.sh"

client() { redis-cli -s "$home/socket" "$@"; }

start() {
  need redis-server redis-cli redis-benchmark
  local user
  user=$(pick_user redis)
  make_home "$user"
  (
    as "$user" redis-server --port 0 --unixsocket "$home/socket" --dir "$home" --save '' \
      --appendonly yes --appendfsync everysec --auto-aof-rewrite-percentage 0 \
      --io-threads "${THREADS:-4}" --io-threads-do-reads yes >> "$log" 2>&1
  ) &
  remember $!
  wait_until 10 client ping || fail "redis-server did not start"
  keep_running
}

commands() { client info stats | tr -d '\r' | sed -n 's/^total_commands_processed://p'; }

load() {
  local before after
  before=$(commands)
  # It has no limit of time. UNLINK frees large values in a background thread.
  timeout "$seconds" redis-benchmark -s "$home/socket" -c 50 -l -q --threads 1 \
    eval 'redis.call("del", "list")
          for i = 1, 200 do redis.call("rpush", "list", i, i, i, i) end
          redis.call("unlink", "list")' 0 > /dev/null 2>> "$log" &
  timeout "$seconds" redis-benchmark -s "$home/socket" -c 50 -l -q -d 512 -t set,get \
    > /dev/null 2>> "$log" || [ $? -eq 124 ] || fail "redis-benchmark"
  wait
  after=$(commands)
  echo "OPS_PER_SECOND=$(((after - before) / seconds))"
}

dispatch
