# Sourced, not run: which Debian mirror this machine uses.
# Sets DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR (no trailing slash).
#
# apt is asked instead of a host being written down here: a machine behind a
# proxy or with a local mirror reaches nothing else. --print-uris needs neither
# the network nor lists fetched before, and reads both formats of sources.

debian_mirrors() {
  local codename uris
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  uris=$(apt-get update --print-uris 2>/dev/null |
         sed -n "s|^'\(.*\)/dists/\([^']*\)/InRelease' .*|\2 \1|p")
  # The path ends in /debian: other vendors name their suites after Debian's too.
  DEBIAN_MIRROR=${DEBIAN_MIRROR:-$(
    awk -v s="$codename" '$1 == s && $2 ~ /\/debian$/ { print $2; exit }' <<<"$uris")}
  if [ -z "$DEBIAN_MIRROR" ]; then
    echo "no Debian mirror for '$codename' in apt's sources; set DEBIAN_MIRROR=URL" >&2
    return 1
  fi
  DEBIAN_SECURITY_MIRROR=${DEBIAN_SECURITY_MIRROR:-$(
    awk -v s="$codename-security" '$1 == s { print $2; exit }' <<<"$uris")}
  # Mirrors carry the two archives side by side.
  DEBIAN_SECURITY_MIRROR=${DEBIAN_SECURITY_MIRROR:-$DEBIAN_MIRROR-security}
}

DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
