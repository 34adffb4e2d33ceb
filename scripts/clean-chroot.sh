#!/bin/bash
# Runs a command in a clean clone of this checkout on a freshly made, minimal
# Debian 12, to show that set-up works where nothing is installed yet.
#
# usage: clean-chroot.sh [--keep] DIR [COMMAND ARGS...]     (default: make test)
#   DIR must not exist yet, or be left from an earlier run with --keep, which is
#   then gone on with. Without --keep it is removed at the end; with it, it stays.
#
# The kernel is the host's, so what needs BPF works as on the host. Mounts live in
# a mount namespace of their own and go with it, whatever happens. Processes are
# not in a namespace of theirs: BPF programs see the host's PIDs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/.." && pwd)
. "$repository/tests/kernels/mirror.sh"

usage() { sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2; }
keep=0
[ "${1:-}" != --keep ] || { keep=1; shift; }
case ${1:-} in ''|-*) usage ;; esac
root=$(realpath -m "$1")
shift
[ $# -gt 0 ] || set -- make test
[ "$(id -u)" = 0 ] || { echo "clean-chroot: needs root" >&2; exit 1; }
[ ! -e "$root" ] || [ -e "$root/.clean-chroot" ] ||
  { echo "clean-chroot: $root exists and was not made here" >&2; exit 1; }

command -v debootstrap >/dev/null || {
  echo "clean-chroot: installing debootstrap"
  { apt-get install -y -q --no-install-recommends debootstrap ||
    { apt-get update -q && apt-get install -y -q --no-install-recommends debootstrap; }; } \
    </dev/null >/dev/null
}
debian_mirrors

# Services that a test left behind keep files open and ports taken. They are found by
# their root directory, so nothing outside is hit. (By its marker file: from here the
# path of a root in another mount namespace reads as "/".)
stop_leftovers() {
  local p
  for p in /proc/[0-9]*; do
    [ ! "$p/root/.clean-chroot" -ef "$root/.clean-chroot" ] || kill -KILL "${p#/proc/}" 2>/dev/null || true
  done
}
finish() {
  stop_leftovers
  # --one-file-system: should a mount be left after all, its files are not removed.
  [ $keep = 1 ] || rm -rf --one-file-system "$root"
}
trap finish EXIT
trap 'exit 130' INT TERM

if [ ! -e "$root/.clean-chroot" ]; then
  echo "clean-chroot: Debian 12 into $root"
  mkdir -p "$root"
  # git and make: whoever cloned and typed the command had these two.
  debootstrap --variant=minbase --include=git,make --keyring="$DEBIAN_KEYRING" bookworm "$root" "$DEBIAN_MIRROR" \
    >"$root/debootstrap.log" 2>&1 || { tail -n 20 "$root/debootstrap.log" >&2; exit 1; }
  {
    echo "deb $DEBIAN_MIRROR bookworm main"
    echo "deb $DEBIAN_MIRROR bookworm-updates main"
    echo "deb $DEBIAN_SECURITY_MIRROR bookworm-security main"
  } >"$root/etc/apt/sources.list"
  # How apt gets out (proxies, retries), not what it does after an update.
  apt-config dump | grep -E '^Acquire::(http|https|ftp|Check|Retries)' \
    >"$root/etc/apt/apt.conf.d/90host" || true
  # Packages must not start their services: the tests start what they need, on ports of their own.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  touch "$root/.clean-chroot"
fi
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"

# What is committed, and nothing else: neither build products nor files not added.
rm -rf --one-file-system "$root/src"
git clone -q --no-hardlinks "$repository" "$root/src/lockscope"
echo "clean-chroot: $(git -C "$root/src/lockscope" log -1 --format='%h %s')"
[ -z "$(git -C "$repository" status --porcelain)" ] ||
  echo "clean-chroot: note: the checkout has changes that are not committed; they are not in the clone"

environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
             TERM="${TERM:-dumb}" LANG=C.UTF-8)
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY CI; do
  [ -z "${!name:-}" ] || environment+=("$name=${!name}")
done

code=0
env -i "${environment[@]}" ROOT="$root" unshare --mount --propagation private bash -euc '
  # The whole of /sys (tracing, bpf, cgroups and BTF hang below it) and /dev, but slaves:
  # what is mounted inside does not show outside.
  mount --bind "$ROOT" "$ROOT"
  mount -t proc proc "$ROOT/proc"
  for d in sys dev; do
    mount --rbind /$d "$ROOT/$d"
    mount --make-rslave "$ROOT/$d"
  done
  mount -t tmpfs tmpfs "$ROOT/run"
  unset ROOT OLDPWD
  exec chroot "$0" sh -c "cd /src/lockscope && exec \"\$@\"" sh "$@"
' "$root" "$@" </dev/null || code=$?
echo "clean-chroot: exit code $code"
exit $code
