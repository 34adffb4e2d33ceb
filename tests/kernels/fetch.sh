#!/bin/bash
# Downloads Debian's cloud kernels and unpacks them (nothing is installed):
#   CACHE/VERSION/vmlinuz   CACHE/VERSION/package ("name version")
# Quick when they are there; --refresh looks for newer ones. A kernel that could
# not be had leaves CACHE/VERSION/missing with the reason.
#
# usage: fetch.sh [--refresh] [5.10|6.1|6.12|sid ...]     KERNEL_CACHE=build/kernels
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/mirror.sh"
cache=${KERNEL_CACHE:-$here/../../build/kernels}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

refresh=0
[ "${1:-}" != --refresh ] || { refresh=1; shift; }
versions=("$@")
[ $# -gt 0 ] || versions=(5.10 6.1 6.12 sid)

# Suites that may hold a version, the smallest package list first, and what its
# package is called. sid's kernel is split: the image is in linux-binary-…; there
# are signed and unsigned builds of one kernel, either serves.
suites_of() {
  case $1 in
    5.10) echo bullseye-security bullseye ;;
    6.1)  echo bookworm-security bookworm ;;
    6.12) echo bookworm-backports trixie-security trixie ;;
    sid)  echo sid ;;
    *)    echo "unknown kernel '$1'" >&2; return 1 ;;
  esac
}
pattern_of() {
  local number
  case $1 in sid) number='[0-9]+\.[0-9]+' ;; *) number=${1//./\\.} ;; esac
  echo "^linux-(binary|image)-(unsigned-)?$number[.][0-9.+a-z~-]*-cloud-amd64(-unsigned)?\$"
}
# Suites rotate out of the mirror: Debian 12 runs without these two.
may_be_missing() { [ "$1" = 5.10 ] || [ "$1" = sid ]; }

# A private apt root: its own sources, lists and state, so that the machine's apt
# neither changes nor is locked. Proxies and the like still come from its settings.
apt_private() {
  local root=$1 tool=$2
  shift 2
  "$tool" -q -o Dir::Etc::SourceList="$root/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o Dir::State="$root/state" -o Dir::State::Status=/dev/null -o Dir::Cache="$root/cache" \
    -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o Acquire::Languages=none \
    -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::http::Timeout=30 \
    -o APT::Update::Post-Invoke-Success= -o APT::Update::Post-Invoke= "$@"
}

# read_suite ROOT SUITE: fetches the suite's list of packages into ROOT.
read_suite() {
  local root=$1 suite=$2 mirror=$DEBIAN_MIRROR
  case $suite in *-security) mirror=$DEBIAN_SECURITY_MIRROR ;; esac
  rm -rf "$root"
  mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial"
  echo "deb [signed-by=$DEBIAN_KEYRING] $mirror $suite main" >"$root/sources.list"
  apt_private "$root" apt-get --error-on=any update >"$root/log" 2>&1
}

# candidates ROOT VERSION: lines of "name version", the newest first. Several,
# because a mirror may list a package that it no longer (or not yet) has. Of one
# version linux-binary goes first: where it exists, linux-image is only a shell.
candidates() {
  apt_private "$1" apt-cache dumpavail 2>/dev/null |
    awk -v pattern="$(pattern_of "$2")" '
      /^Package: / { name = $2 ~ pattern ? $2 : "" }
      /^Version: / { if (name != "") print name, $2 }' |
    sort -k2,2Vr -k1,1 | awk 'NR <= 6'
}

# unpack ROOT NAME VERSION DIR: only the image; what the guests need is built in,
# and the modules are five times as large.
unpack() {
  local root=$1 name=$2 version=$3 dir=$4 image
  rm -rf "$root"/*.deb "$root/unpacked"
  (cd "$root" && apt_private "$root" apt-get download "$name=$version") >"$root/log" 2>&1 || return 1
  dpkg-deb -x "$root"/*.deb "$root/unpacked" 2>"$root/log" || return 1
  image=$(find "$root/unpacked" -name 'vmlinuz*' -type f | head -n 1)
  [ -n "$image" ] || { echo "E: no vmlinuz in it" >"$root/log"; return 1; }
  mkdir -p "$dir"
  mv "$image" "$dir/vmlinuz.new"
  echo "$name $version" >"$dir/package"
  mv "$dir/vmlinuz.new" "$dir/vmlinuz"
  rm -f "$dir/missing"
}

fetch() {
  local version=$1 dir=$cache/$1 root=$cache/.apt-$1 suite name number reason=
  for suite in $(suites_of "$version"); do
    read_suite "$root" "$suite" || {
      reason+="; $suite: $(grep -m1 '^[EW]: ' "$root/log" || echo 'cannot be read')"; continue; }
    candidates "$root" "$version" >"$root/candidates"
    [ -s "$root/candidates" ] || reason+="; $suite: no cloud kernel listed"
    while read -r name number; do
      if [ -s "$dir/vmlinuz" ] && [ "$(cat "$dir/package")" = "$name $number" ]; then
        rm -rf "$root"
        return 0
      fi
      if unpack "$root" "$name" "$number" "$dir"; then
        echo "kernels: $version: $name $number from $suite"
        rm -rf "$root"
        return 0
      fi
      reason+="; $name: $(grep -m1 '^E: ' "$root/log" || echo 'download failed')"
    done <"$root/candidates"
  done
  rm -rf "$root"
  if [ -s "$dir/vmlinuz" ]; then
    echo "kernels: $version: nothing newer (${reason#; }), keeping $(cat "$dir/package")"
    return 0
  fi
  mkdir -p "$dir"
  echo "${reason#; }" >"$dir/missing"
  if may_be_missing "$version"; then
    echo "kernels: SKIP $version: ${reason#; }" >&2
    return 0
  fi
  echo "kernels: ERROR: no kernel $version: ${reason#; }" >&2
  return 1
}

wanted=()
for v in "${versions[@]}"; do
  suites_of "$v" >/dev/null
  [ $refresh = 0 ] && [ -s "$cache/$v/vmlinuz" ] || wanted+=("$v")
done
[ ${#wanted[@]} -gt 0 ] || exit 0

# Only one at a time may fill the cache.
exec 9>"$cache/.lock"
flock 9
debian_mirrors
jobs=() failed=0
for v in "${wanted[@]}"; do
  fetch "$v" &
  jobs+=($!)
done
for j in "${jobs[@]}"; do wait "$j" || failed=1; done
exit $failed
