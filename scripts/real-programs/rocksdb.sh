#!/bin/bash
# RocksDB's db_bench, readwhilewriting with eight readers: C++; one hot mutex, that of the block cache,
# which is given a single shard for it.
# The program is its own load: `start` fills a database and starts the readers and the writer,
# `load` looks on for its seconds and prints their rate. Usage: see common.sh.
. "$(dirname "$0")/common.sh"

options=(--num=200000 --value_size=100 --compression_type=none --write_buffer_size=4194304)

start() {
  need db_bench
  local user
  user=$(pick_user nobody)
  make_home "$user"
  (as "$user" db_bench --db="$home/data" "${options[@]}" --benchmarks=fillseq >> "$log" 2>&1) ||
    fail "fillseq failed"
  (
    as "$user" db_bench --db="$home/data" --use_existing_db=1 --cache_numshardbits=0 "${options[@]}" \
      --benchmarks=readwhilewriting --threads="${THREADS:-8}" --duration="$LIMIT" \
      --stats_interval_seconds=1 >> "$log" 2>&1
  ) &
  remember $!
  wait_until 20 grep -q 'thread 0' "$log" || fail "db_bench did not start"
  keep_running
}

# Each thread prints "thread 3: (1000,24000) ops and ..." about once a second, the second number
# being all of its operations. This is their sum.
operations() {
  sed -n 's/.*thread \([0-9]*\): ([0-9]*,\([0-9]*\)) ops.*/\1 \2/p' "$log" |
    awk '{ done[$1] = $2 } END { for (t in done) sum += done[t]; print sum + 0 }'
}

load() {
  local before after
  before=$(operations)
  sleep "$seconds"
  require_running
  after=$(operations)
  echo "OPS_PER_SECOND=$(((after - before) / seconds))"
}

dispatch
