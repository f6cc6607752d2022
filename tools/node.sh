#!/usr/bin/env bash
# Sees to it that this machine can be a node of a test cluster: containerd, runc and network plugins are installed, from
# apt where they are missing, and processes can be given namespaces of their own. Ends with 1, saying why, where not.
set -euo pipefail

tool=node
# shellcheck source=tools/cached.sh
source "$(dirname "$0")/cached.sh"

[ "$(uname -s)" = Linux ] || fail "containers need Linux"
[ "$(id -u)" -eq 0 ] || fail "containers are started by root; run this as root"

missing=()
command -v containerd >/dev/null && command -v ctr >/dev/null || missing+=(containerd)
command -v runc >/dev/null || missing+=(runc)
[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || missing+=(containernetworking-plugins)
command -v ip >/dev/null || missing+=(iproute2)
command -v mount >/dev/null || missing+=(mount)
[ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}" || fail "missing here, and apt-get cannot install them: ${missing[*]}"

unshare --mount --pid --fork --mount-proc true 2>/dev/null \
  || fail "this machine does not let root make namespaces and mounts, which containers are made of"
[ -n "$(find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs -writable 2>/dev/null | head -n 1)" ] \
  || fail "control groups cannot be written to below /sys/fs/cgroup"
# The bridge itself is made and removed again: some kernels lack the module.
probe=probe$$ # another call may look at the same moment
ip link add "$probe" type bridge 2>/dev/null || fail "this machine does not let root make network bridges"
ip link delete "$probe"
