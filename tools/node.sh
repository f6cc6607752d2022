#!/usr/bin/env bash
# Prepares this machine as a node of a test cluster: installs missing containerd, runc and network plugins by apt, and
# checks that processes can have their own namespaces. Exits with 1 and the reason if the machine cannot be a node.
set -euo pipefail

tool=node
# shellcheck source=tools/cached.sh
source "$(dirname "$0")/cached.sh"

[ "$(uname -s)" = Linux ] || fail "containers need Linux"
[ "$(id -u)" -eq 0 ] || fail "starting containers requires root: run this as root"

missing=()
command -v containerd >/dev/null && command -v ctr >/dev/null || missing+=(containerd)
command -v runc >/dev/null || missing+=(runc)
[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || missing+=(containernetworking-plugins)
command -v ip >/dev/null || missing+=(iproute2)
command -v mount >/dev/null || missing+=(mount)
[ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}" || fail "missing, and apt-get cannot install them: ${missing[*]}"

unshare --mount --pid --fork --mount-proc true 2>/dev/null \
  || fail "root cannot create namespaces and mounts on this machine, which containers require"
[ -n "$(find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs -writable 2>/dev/null | head -n 1)" ] \
  || fail "control groups in /sys/fs/cgroup are not writable"
# Create and remove a bridge, because some kernels lack the module.
probe=probe$$ # unique, in case of concurrent calls
ip link add "$probe" type bridge 2>/dev/null || fail "root cannot create network bridges on this machine"
ip link delete "$probe"
