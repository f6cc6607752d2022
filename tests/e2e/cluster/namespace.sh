#!/usr/bin/env bash
# First process of the namespaces of a node's daemons and containers; the argument is the node's folder. Other folders that they
# write to are covered by mounts, so nothing remains on the machine. This script ends when its standard input is closed, even if the
# test was killed, and the kernel then ends all processes and mounts.
set -euo pipefail
state=$1

mkdir -p "$state"/{lib,log}
mount --bind "$state/lib" /var/lib
mount --bind "$state/log" /var/log
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/lock

# The kubelet requires these kernel settings, which belong to the machine: cover the files with the expected values.
cover() {
  local file=$state/${1//\//-}
  [ -e "/proc/sys/$1" ] || return 0
  echo "$2" >"$file"
  mount --bind "$file" "/proc/sys/$1"
}
cover vm/overcommit_memory 1
cover vm/panic_on_oom 0
cover kernel/panic 10
cover kernel/panic_on_oops 1
cover kernel/keys/root_maxkeys 1000000
cover kernel/keys/root_maxbytes 25000000

mount --make-rshared / # mounts of volumes reach containers
echo ready
while read -r _; do :; done
