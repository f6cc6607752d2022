#!/usr/bin/env bash
# Builds images of the Dockerfile without a daemon, and prints the path of each archive (in the format of `docker save`):
# tools/images.sh operator|trainer|trainer-cpu …
#
# Uses buildah as root, and installs it by apt if it is missing. The base is pulled from its registry; if that cannot be
# reached, a small Debian with Python is made by debootstrap. Layers and archives are kept in SEELE_CACHE, by default
# ~/.cache/seele.
set -euo pipefail
cd "$(dirname "$0")/.."

base=${SEELE_PYTHON_IMAGE:-$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)}
own_base=localhost/seele-base:bookworm
mirror=${SEELE_DEBIAN_MIRROR:-} # if empty, debootstrap uses its default
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

tool=images
# shellcheck source=tools/cached.sh
source tools/cached.sh
cannot() { say "$*"; exit 2; } # because of this machine, not of the Dockerfile

name_of() { # TARGET: the image's name in the chart or a SeeleRun
  case $1 in
    operator) echo "ghcr.io/seele-dev/seele-operator:$version" ;;
    trainer) echo "ghcr.io/seele-dev/seele:$version" ;;
    trainer-cpu) echo "ghcr.io/seele-dev/seele:$version-cpu" ;;
    *) fail "there is no image $1: use operator, trainer or trainer-cpu" ;;
  esac
}

need() { # PROGRAM: the name of its package too
  command -v "$1" >/dev/null || apt_install "$1" || cannot "$1 is missing, and apt-get cannot install it"
}

# A separate store, so that the user's images are not touched. Without cgroups v2 and user namespaces, which build machines
# often lack, only chroot isolation works.
store=(--root "$cache/storage" --runroot "$cache/run")
build() { buildah "${store[@]}" --storage-driver "$driver" build --isolation chroot "$@"; }
own() { buildah "${store[@]}" --storage-driver "$driver" "$@"; }

choose_driver() { # overlay if possible: vfs copies every layer
  driver=overlay
  [ ! -d "$cache/storage/vfs" ] && own images >/dev/null 2>&1 && return
  driver=vfs
  own images >/dev/null || cannot "buildah can use neither overlay nor vfs in $cache/storage"
}

make_base() { # Like python:slim-bookworm: a minimal Debian with Python 3.11 and certificates
  say "$base cannot be pulled: making a base by debootstrap (once, about two minutes)"
  need debootstrap
  local root container
  root=$(mktemp -d "$cache/.base-XXXXXX")
  # If debootstrap fails, it leaves mounts behind.
  trap 'umount -R "$root/proc" "$root/sys" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$root" ${mirror:+"$mirror"} >"$cache/debootstrap.log" 2>&1 \
    || { tail -n 5 "$cache/debootstrap.log" >&2; cannot "debootstrap could not make a base from ${mirror:-its usual mirror}; set SEELE_DEBIAN_MIRROR or SEELE_PYTHON_IMAGE"; }
  rm -rf "$root"/var/cache/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/{man,info,locale,i18n}/*
  find "$root/usr/share/doc" -type f ! -name copyright -delete
  mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"
  container=$(own from scratch)
  own add --quiet "$container" "$root" / >/dev/null
  own config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin --cmd python3 "$container"
  own commit --quiet --rm --format docker "$container" "$own_base" >/dev/null
  rm -rf --one-file-system "$root"
  trap - EXIT
}

find_base() {
  own inspect --type image "$base" >/dev/null 2>&1 && return
  [ -n "${SEELE_PYTHON_IMAGE:-}" ] || ! own inspect --type image "$own_base" >/dev/null 2>&1 || { base=$own_base; return; }
  timeout 300 buildah "${store[@]}" --storage-driver "$driver" pull --quiet "$base" >/dev/null 2>&1 && return
  [ -z "${SEELE_PYTHON_IMAGE:-}" ] || cannot "SEELE_PYTHON_IMAGE=$base cannot be pulled"
  make_base
  base=$own_base
}

make_image() { # TARGET
  local name archive id
  name=$(name_of "$1")
  archive=$cache/seele-$1.tar
  say "building $name"
  build --quiet --layers --format docker --target "$1" --tag "$name" --build-arg PYTHON_IMAGE="$base" \
    --build-arg VERSION="$version" --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
    "${settings[@]}" . >"$cache/build-$1.log" 2>&1 \
    || { tail -n 30 "$cache/build-$1.log" >&2; fail "$name could not be built; the full log is $cache/build-$1.log"; }
  id=$(own inspect --type image --format '{{.FromImageID}}' "$name")
  if [ ! -f "$archive" ] || [ "$(cat "$archive.id" 2>/dev/null)" != "$id" ]; then
    rm -f "$archive" "$archive.id"
    own push --quiet "$name" "docker-archive:$archive:$name" >/dev/null
    echo "$id" >"$archive.id"
  fi
  echo "$archive"
}

[ $# -gt 0 ] || fail "no image given: use operator, trainer or trainer-cpu"
for target in "$@"; do name_of "$target" >/dev/null; done
[ "$(id -u)" -eq 0 ] || cannot "building without a daemon needs root; otherwise use: docker build --target $1 ."
need buildah
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
choose_driver
find_base
scratch=$(mktemp -d "$cache/.settings-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
python=${PYTHON:-python3}
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=.venv/bin/python # which certainly has pip
# Not read from a pipe, where a failure would go unnoticed and the build would look for packages in the wrong place.
"$python" tools/pip_settings.py "$scratch" >"$scratch/settings" || cannot "tools/pip_settings.py cannot read the settings of pip"
mapfile -t settings <"$scratch/settings"
own rm --all >/dev/null 2>&1 || true # of interrupted builds
for target in "$@"; do make_image "$target"; done
# Layers of earlier builds speed up later ones; remove them only if they take too much space.
if [ "$(du --summarize --block-size=1G "$cache/storage" 2>/dev/null | cut -f1)" -gt 20 ] 2>/dev/null; then
  own rmi --prune --force >/dev/null 2>&1 || true
fi
