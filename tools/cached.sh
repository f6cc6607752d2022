# Shared by the scripts that find, download, install or build a tool. Set `tool` (its name, and that of its folder in the cache)
# before sourcing this, and `wanted` (the files that must be in a folder) if the result is a folder.
# Except for apt_install, only the cache is written to: SEELE_CACHE, by default ~/.cache/seele.
cache=${SEELE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/seele}/$tool

say() { echo "$tool: $*" >&2; }
fail() { say "$*"; exit 1; }
found() { echo "$1"; exit 0; }

complete() { # FOLDER: has all wanted files
  local name
  for name in "${wanted[@]}"; do [ -x "$1/$name" ] || return 1; done
}

in_cache() { # FOLDER …: prints the first complete one and exits
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

lock() { # Only one call at a time fills the cache, in the temporary folder $new
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  flock 9
  new=$(mktemp -d "$cache/.new-XXXXXX")
  trap 'rm -rf "$new"' EXIT
  chmod 755 "$new"
}

attempt() { # WAY: calls it with the empty folder $new; its exit status is in $worked
  rm -rf "${new:?}"/*
  # Not called in a condition, where bash would ignore its `set -e`.
  set +e
  "$1" "$new"
  worked=$?
  set -e
}

apt_install() { # PACKAGE …: fails if apt is missing or cannot install them; concurrent calls wait, because of apt's own locks
  command -v apt-get >/dev/null || return 1
  say "installing $*"
  mkdir -p "$(dirname "$cache")"
  (
    flock 8
    # An unreachable list is not an error: what counts is whether the packages can be installed.
    apt-get update -qq -o DPkg::Lock::Timeout=300 >/dev/null 2>&1 || true
    # A service started by a package must not keep our locks open.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" \
      >/dev/null 2>&1 8>&- 9>&-
  ) 8>"$(dirname "$cache")/.apt-lock"
}

keep() { # FOLDER: move $new there
  rm -rf "${1:?}"
  mv "$new" "$1"
}
