#!/bin/bash
# nginx that reads files in a pool of threads (aio threads), under http_load.py: C. PID is the
# master's; the worker, its child, has the pool. Usage: see common.sh.
. "$(dirname "$0")/common.sh"
PATH=$PATH:/usr/sbin

start() {
  need nginx python3
  local user
  user=$(pick_user www-data nobody)
  make_home "$user"
  mkdir "$home/files"
  head -c 262144 /dev/urandom > "$home/files/data"
  cat > "$home/nginx.conf" << END
daemon off;
pid $home/nginx.pid;
error_log $log;
worker_processes 1;
thread_pool default threads=${THREADS:-8};
events { worker_connections 256; }
http {
  access_log off;
  keepalive_requests 1000000;
  sendfile off;
  aio threads;
  client_body_temp_path $home/tmp1; proxy_temp_path $home/tmp2; fastcgi_temp_path $home/tmp3;
  uwsgi_temp_path $home/tmp4; scgi_temp_path $home/tmp5;
  server { listen unix:$home/socket; root $home/files; }
}
END
  chown -R "$user" "$home"
  (as "$user" nginx -e "$log" -p "$home" -c "$home/nginx.conf" >> "$log" 2>&1) &
  remember $!
  wait_until 10 test -S "$home/socket" || fail "nginx did not start"
  keep_running
}

load() { python3 "$(dirname "$0")/http_load.py" "$home/socket" /data "${CONNECTIONS:-16}" "$seconds"; }

dispatch
