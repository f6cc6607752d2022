#!/usr/bin/env bash
# First process of the namespaces in which a node's daemons and containers run; the argument is the node's own folder.
# Whatever they write elsewhere is covered here, so the machine keeps nothing of it. When standard input is closed, this
# ends, and the kernel ends every process and mount with it: also after a kill of whoever started the node.
set -euo pipefail
state=$1

mkdir -p "$state"/{lib,log}
mount --bind "$state/lib" /var/lib
mount --bind "$state/log" /var/log
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/lock

# A kubelet insists on these settings of the kernel, which are the machine's: it is shown what it wants to see.
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
