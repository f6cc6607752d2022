# What the scripts share that find, download, install or make a tool. Sourced after `tool` (its name, and that of its folder in the
# cache), and `wanted` (the files that a folder must have) where a folder is what is looked for.
# Only the cache is written to, but by apt_install: SEELE_CACHE, else ~/.cache/seele.
cache=${SEELE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/seele}/$tool

say() { echo "$tool: $*" >&2; }
fail() { say "$*"; exit 1; }
found() { echo "$1"; exit 0; }

complete() { # FOLDER: has everything that is wanted
  local name
  for name in "${wanted[@]}"; do [ -x "$1/$name" ] || return 1; done
}

in_cache() { # FOLDER …: ends with the first that is complete
  local folder
  for folder in "$@"; do
    if complete "$folder"; then found "$folder"; fi
  done
}

on_path() {
  local name folder=$cache/path
  for name in "${wanted[@]}"; do command -v "$name" >/dev/null || return 0; done
  mkdir -p "$folder"
  for name in "${wanted[@]}"; do ln -sfn "$(command -v "$name")" "$folder/$name"; done
  found "$folder"
}

fetch() { # URL FILE
  curl --fail --silent --show-error --location --connect-timeout 5 --retry 2 --output "$2" "$1"
}

lock() { # One call at a time fills the cache, in the folder $new, which is gone when the script ends
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  flock 9
  new=$(mktemp -d "$cache/.new-XXXXXX")
  trap 'rm -rf "$new"' EXIT
  chmod 755 "$new"
}

attempt() { # WAY: call it with the empty folder $new; whether it did what it should is in $worked
  rm -rf "${new:?}"/*
  # Called bare and not in a condition, where bash would ignore `set -e` inside of it.
  set +e
  "$1" "$new"
  worked=$?
  set -e
}

apt_install() { # PACKAGE …: fails where apt is missing or cannot; two calls at once would fail over apt's own locks
  command -v apt-get >/dev/null || return 1
  say "installing $*"
  mkdir -p "$(dirname "$cache")"
  (
    flock 8
    # A list that cannot be had must not end it: what counts is whether the packages are there.
    apt-get update -qq -o DPkg::Lock::Timeout=300 >/dev/null 2>&1 || true
    # A service that a package starts must not go on holding our locks.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" \
      >/dev/null 2>&1 8>&- 9>&-
  ) 8>"$(dirname "$cache")/.apt-lock"
}

keep() { # FOLDER: move $new there
  rm -rf "${1:?}"
  mv "$new" "$1"
}
