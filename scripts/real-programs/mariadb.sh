#!/bin/bash
# MariaDB under sysbench (WORKLOAD: oltp_write_only, the default, or oltp_point_select): C++, many
# InnoDB locks and condition variables. Usage: see common.sh.
. "$(dirname "$0")/common.sh"
PATH=$PATH:/usr/sbin
WORKLOAD=${WORKLOAD:-oltp_write_only}

client() { mariadb --no-defaults --socket="$home/socket" -u root "$@"; }

bench() {
  local tables=4 rows=10000
  timeout $((seconds + 60)) sysbench "$WORKLOAD" --db-driver=mysql --mysql-socket="$home/socket" --mysql-user=root \
    --mysql-db=sbtest --tables=$tables --table-size=$rows --rand-type=uniform \
    --threads="${THREADS:-16}" "$@"
}

start() {
  need mariadbd mariadb-install-db mariadb sysbench
  local user
  user=$(pick_user mysql)
  make_home "$user"
  mkdir "$home/data" "$home/tmp"
  chown "$user" "$home/data" "$home/tmp"
  # Anybody may be root: the only way in is a socket in a directory of our own.
  chmod 700 "$home"
  mariadb-install-db --no-defaults --user="$user" --datadir="$home/data" --tmpdir="$home/tmp" \
    --auth-root-authentication-method=normal --skip-test-db >> "$log" 2>&1 ||
    fail "mariadb-install-db failed"
  (
    as "$user" mariadbd --no-defaults --datadir="$home/data" --tmpdir="$home/tmp" \
      --socket="$home/socket" --pid-file="$home/mariadbd.pid" --skip-networking \
      --innodb-buffer-pool-size=128M --innodb-log-file-size=48M \
      --innodb-flush-log-at-trx-commit=1 --max-connections=128 >> "$log" 2>&1
  ) &
  remember $!
  wait_until 60 client -e 'select 1' || fail "mariadbd did not start"
  client -e 'create database sbtest'
  THREADS=4 bench prepare >> "$log" 2>&1 || fail "sysbench prepare failed"
  keep_running
}

load() {
  local out
  out=$(bench --time="$seconds" --events=0 run 2>&1) || fail "sysbench: $out"
  grep -E 'transactions:|95th' <<< "$out"
  sed -n 's/.*transactions:.*(\([0-9.]*\) per sec.*/OPS_PER_SECOND=\1/p' <<< "$out"
}

dispatch
