# What runs in a guest (init.sh), under busybox sh: what this kernel allows, and two
# real captures of a program that times itself. Files in /results go back to the host,
# which checks the books (check.py); here only exit codes are judged.
#
# Holds of 5 ms: an emulated CPU can take 20 us from the program's clock to the system
# call, and that must stay far below 1 % of a wait.
workload='timed_mutex --threads 4 --seconds 3 --hold-us 5000 --think-us 1000 --holder sleep'
failed=0
must() {
  "$@" && return
  echo "FAILED, exit code $?: $*"
  failed=1
}

# --- what this kernel allows ------------------------------------------------------
must lockscope doctor >/results/doctor
cat /results/doctor

# --- a command, from its first instruction to its end; saved, then replayed -------
must lockscope record -o /tmp/command.capture -- \
  sh -c "exec $workload >/results/command.workload.json"
must lockscope diagnose --format json -o /results/command.diagnosis.json /tmp/command.capture
must lockscope report --format json -o /results/command.report.json /tmp/command.capture
must lockscope flame --metric wait --format folded -o /results/command.wait.folded /tmp/command.capture

# --- with uprobes in its libc: every acquisition; and what holders do --------------
must lockscope report --tiers futex,pthread,holder --format json -o /results/pthread.report.json -- \
  sh -c "exec $workload >/results/pthread.workload.json"

# --- a running process, attached to before its first wait and watched to its end ---
# Without tracefs, as in most containers: the tool has to see to it.
umount /sys/kernel/tracing
$workload --ready-file /tmp/ready --go-file /tmp/go >/results/attach.workload.json &
while [ ! -s /tmp/ready ]; do usleep 20000; done
lockscope diagnose --format json -o /results/attach.diagnosis.json -d 60 \
  -p "$(cat /tmp/ready)" 2>/tmp/attach.log &
tracer=$!
# It says nothing that a script could wait for, so: it has attached its programs when it
# has perf events and sleeps, three looks running. Looks are seldom, because they take an
# emulated CPU from the verifier.
attached() {
  ls -l /proc/$tracer/fd 2>/dev/null | grep -q perf_event &&
    grep -q '^State:.*sleeping' /proc/$tracer/status
}
must lockscope threads -p "$(cat /tmp/ready)" >/tmp/threads
grep -q 'timed_mutex\[.*threads;' /tmp/threads || { echo "FAILED: no threads listed"; cat /tmp/threads; failed=1; }
looks=0 in_a_row=0
while [ $in_a_row -lt 3 ] && [ $looks -lt 120 ] && [ -d /proc/$tracer ]; do
  usleep 500000
  if attached; then in_a_row=$((in_a_row + 1)); else in_a_row=0; fi
  looks=$((looks + 1))
done
touch /tmp/go
must wait $tracer
cat /tmp/attach.log

exit $failed
