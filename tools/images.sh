#!/usr/bin/env bash
# Builds images of the Dockerfile without a daemon, and prints for each the archive that it is in (as `docker save` writes it):
# tools/images.sh operator|trainer|trainer-cpu …
#
# By buildah, installed by apt where it is missing; as root. The base is pulled from its registry or, where none can be reached,
# made here: a small Debian with Python, by debootstrap. Layers and archives are kept in SEELE_CACHE, else ~/.cache/seele.
set -euo pipefail
cd "$(dirname "$0")/.."

base=${SEELE_PYTHON_IMAGE:-$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)}
own_base=localhost/seele-base:bookworm
mirror=${SEELE_DEBIAN_MIRROR:-} # where empty, debootstrap has one of its own
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

tool=images
# shellcheck source=tools/cached.sh
source tools/cached.sh
cannot() { say "$*"; exit 2; } # this machine is the reason, and not the Dockerfile

name_of() { # TARGET: the name that the chart, or a SeeleRun, gives it
  case $1 in
    operator) echo "ghcr.io/seele-dev/seele-operator:$version" ;;
    trainer) echo "ghcr.io/seele-dev/seele:$version" ;;
    trainer-cpu) echo "ghcr.io/seele-dev/seele:$version-cpu" ;;
    *) fail "there is no image $1; say operator, trainer or trainer-cpu" ;;
  esac
}

need() { # PROGRAM, which its package is named after
  command -v "$1" >/dev/null || apt_install "$1" || cannot "$1 is missing, and apt-get cannot install it"
}

# A store of our own: images of the machine's user are not ours to touch. Without control groups of version 2 and user
# namespaces, which build machines often lack, only the chroot isolation works.
store=(--root "$cache/storage" --runroot "$cache/run")
build() { buildah "${store[@]}" --storage-driver "$driver" build --isolation chroot "$@"; }
own() { buildah "${store[@]}" --storage-driver "$driver" "$@"; }

choose_driver() { # overlay where the disk allows it: vfs copies every layer whole
  driver=overlay
  [ ! -d "$cache/storage/vfs" ] && own images >/dev/null 2>&1 && return
  driver=vfs
  own images >/dev/null || cannot "buildah can use neither overlay nor vfs in $cache/storage"
}

make_base() { # What python:slim-bookworm is: Debian's smallest system, with Python 3.11, certificates, and little else
  say "no registry answers for $base: making a base by debootstrap (once, about two minutes)"
  need debootstrap
  local root container
  root=$(mktemp -d "$cache/.base-XXXXXX")
  # debootstrap leaves mounts behind where it fails.
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
    || { tail -n 30 "$cache/build-$1.log" >&2; fail "$name could not be built; all it said is in $cache/build-$1.log"; }
  id=$(own inspect --type image --format '{{.FromImageID}}' "$name")
  if [ ! -f "$archive" ] || [ "$(cat "$archive.id" 2>/dev/null)" != "$id" ]; then
    rm -f "$archive" "$archive.id"
    own push --quiet "$name" "docker-archive:$archive:$name" >/dev/null
    echo "$id" >"$archive.id"
  fi
  echo "$archive"
}

[ $# -gt 0 ] || fail "which image? say operator, trainer or trainer-cpu"
for target in "$@"; do name_of "$target" >/dev/null; done
[ "$(id -u)" -eq 0 ] || cannot "buildah without a daemon is run by root here; elsewhere: docker build --target $1 ."
need buildah
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
choose_driver
find_base
scratch=$(mktemp -d "$cache/.settings-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
python=${PYTHON:-python3}
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=.venv/bin/python # which has a pip for sure
# Not from a pipe, whose failure nobody would see: the build would look for packages where there are none.
"$python" tools/pip_settings.py "$scratch" >"$scratch/settings" || cannot "tools/pip_settings.py cannot tell where pip looks for packages"
mapfile -t settings <"$scratch/settings"
own rm --all >/dev/null 2>&1 || true # of builds that were broken off
for target in "$@"; do make_image "$target"; done
# Layers of earlier builds make a later one quick, until they are too many.
if [ "$(du --summarize --block-size=1G "$cache/storage" 2>/dev/null | cut -f1)" -gt 20 ] 2>/dev/null; then
  own rmi --prune --force >/dev/null 2>&1 || true
fi
