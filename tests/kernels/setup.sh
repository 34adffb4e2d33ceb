#!/bin/bash
# Installs what run.sh and fetch.sh need on the host; quick when nothing is missing.
set -euo pipefail

# qemu-system-x86 boots, busybox-static and cpio make the initramfs, binutils
# strips what goes into it, python3 checks what comes out.
packages=(qemu-system-x86 busybox-static cpio binutils python3 debian-archive-keyring)

missing=()
for p in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
  echo "kernels: missing packages, install as root: apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "kernels: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null; }
# The lists may be missing or too old for what the mirror still has.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install >"$log" 2>&1 || { apt-get update -q && install; } >>"$log" 2>&1 ||
  { tail -n 30 "$log" >&2; exit 1; }
