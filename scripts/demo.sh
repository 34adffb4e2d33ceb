#!/bin/bash
# The main job at once: starts a small contended service, attaches to it while it runs, prints the
# diagnosis and writes a flame graph beside it.
#
#   scripts/demo.sh BUILD-FOLDER
set -euo pipefail
build=$1
work=$(mktemp -d)
service=
cleanup() {
  if [ -n "$service" ]; then kill "$service" 2>/dev/null || true; wait "$service" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

"$build/workloads/demo_service" --seconds 60 > "$work/service.log" &
service=$!
echo "demo: started a service with lock trouble, PID $service; watching it for 5 s" >&2
"$build/lockscope" record -p "$service" -d 5 -o "$build/demo.capture"
"$build/lockscope" diagnose "$build/demo.capture"
"$build/lockscope" flame "$build/demo.capture" --metric wait -o "$build/demo.svg"
echo
echo "Flame graph: $build/demo.svg (open it in a browser). The capture: $build/demo.capture; try"
echo "  $build/lockscope report $build/demo.capture"
