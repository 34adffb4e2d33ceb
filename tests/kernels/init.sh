#!/bin/busybox sh
# PID 1 of a guest: sets it up, runs /guest-test.sh, hands back over the second
# serial port what it printed, its exit code and every file in /results, and
# powers off. What goes over the port is read by unpack.py.
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /results /root /sbin /usr/bin /usr/sbin /etc
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=dumb
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmp /tmp
mount -t tmpfs shm /dev/shm
mount -t devpts devpts /dev/pts
hostname guest
ip link set lo up
echo 'root:x:0:0::/root:/bin/sh' >/etc/passwd

port=/dev/ttyS1
stty -F $port raw -echo
exec 3>$port
echo "@@guest START $(uname -r)" >&3
# Through a pipe: on a terminal programs would draw progress lines.
{ sh /guest-test.sh 2>&1 </dev/null; echo $? >/run/code; } | cat >&3
code=$(cat /run/code)
# A last line may lack its end.
echo >&3
cd /results
for f in *; do
  [ -f "$f" ] || continue
  echo "@@guest FILE $f" >&3
  gzip -c "$f" | base64 >&3
  echo "@@guest END" >&3
done
echo "@@guest EXIT $code" >&3
# Waits until the port's buffer is out, or the last lines are lost.
stty -F $port sane
exec 3>&-
poweroff -f
