#!/bin/bash
# Installs, from Debian, what building lockscope needs, and with "test" what its tests need beside.
#
#   scripts/setup.sh [build|test]      (default: build)
#
# Idempotent; when nothing is missing it makes one dpkg query and returns. Says what it installs.
set -euo pipefail

build=(g++ make pkg-config clang-14 bpftool libbpf-dev libelf-dev libdw-dev libdebuginfod-dev
       liblzma-dev zlib1g-dev libzstd-dev libiberty-dev libseccomp-dev libspdlog-dev libfmt-dev
       libcli11-dev nlohmann-json3-dev libzydis-dev linux-libc-dev)
test=(libgtest-dev golang-go python3 python3-pytest python3-jsonschema binutils gcc musl-tools procps
      util-linux libclang-rt-14-dev xz-utils)

case "${1:-build}" in
  build) wanted=("${build[@]}") ;;
  test)  wanted=("${build[@]}" "${test[@]}") ;;
  *) echo "usage: $0 [build|test]" >&2; exit 2 ;;
esac

missing=()
for package in "${wanted[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
    missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "setup: missing ${missing[*]}; installing them needs root" >&2
  exit 77
fi
echo "setup: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
log=$(mktemp)
if ! { "${install[@]}" "${missing[@]}" ||
       { apt-get update -qq && "${install[@]}" "${missing[@]}"; }; } > "$log" 2>&1; then
  tail -20 "$log" >&2
  echo "setup: apt-get failed; its whole output is in $log" >&2
  exit 1
fi
rm -f "$log"
