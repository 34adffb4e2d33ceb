#!/bin/bash
# Installs, from Debian, the programs that lockscope is tested against and measured beside.
#
#   scripts/install-real-programs.sh [servers|tracers|all]      (default: all)
#
# Idempotent; when nothing is missing it makes one dpkg query and returns. No package may start a
# service: the servers run only for as long as a test wants them, in a directory of its own.
set -euo pipefail

servers=(memcached libmemcached-tools mariadb-server-core mariadb-client-core sysbench
         postgresql-15 rocksdb-tools redis-server redis-tools nginx-light
         rustc openjdk-17-jdk-headless elfutils)
tracers=(bpftrace bpfcc-tools libbpf-tools linux-perf)

case "${1:-all}" in
  servers) wanted=("${servers[@]}") ;;
  tracers) wanted=("${tracers[@]}") ;;
  all)     wanted=("${servers[@]}" "${tracers[@]}") ;;
  *) echo "usage: $0 [servers|tracers|all]" >&2; exit 2 ;;
esac

# dpkg-query fails if it knows nothing of one of them, but prints what it knows of the others.
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true)
missing=()
for package in "${wanted[@]}"; do
  grep -qx "installed $package" <<< "$installed" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "$0: missing ${missing[*]}; installing them needs root" >&2
  exit 77
fi

exec 9> /run/lock/lockscope-install
flock 9

# invoke-rc.d and deb-systemd-invoke ask this file before they start anything; 101 means "don't".
policy=/usr/sbin/policy-rc.d
saved=
restore_policy() {
  rm -f "$policy"
  if [ -n "$saved" ]; then mv "$saved" "$policy"; fi
}
if [ -e "$policy" ]; then
  saved=$policy.lockscope-saved
  mv "$policy" "$saved"
fi
trap restore_policy EXIT
printf '#!/bin/sh\nexit 101\n' > "$policy"
chmod 755 "$policy"

echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
log=$(mktemp)
if ! { "${install[@]}" "${missing[@]}" ||
       { apt-get update -qq && "${install[@]}" "${missing[@]}"; }; } > "$log" 2>&1; then
  tail -20 "$log" >&2
  echo "$0: apt-get failed; its whole output is in $log" >&2
  exit 1
fi
rm -f "$log"
