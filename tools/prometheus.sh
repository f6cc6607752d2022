#!/usr/bin/env bash
# Prints a folder with prometheus and promtool.
#
# Looks in this order: SEELE_PROMETHEUS (a folder), PATH, the cache, a download of the official release, and Debian's
# package, which is only unpacked: this needs no root and starts no service. Only the cache is written to: SEELE_CACHE, by
# default ~/.cache/seele.
set -euo pipefail

version=3.5.0 # to download; a release with long-term support
downloads=${SEELE_PROMETHEUS_DOWNLOADS:-https://github.com/prometheus/prometheus/releases/download}
wanted=(prometheus promtool)
tool=prometheus
# shellcheck source=tools/cached.sh
source "$(dirname "$0")/cached.sh"

download() ( # FOLDER
  set -e
  command -v curl >/dev/null || exit 1
  case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) exit 1 ;; esac
  fetch "$downloads/v$version/sha256sums.txt" "$1/sums" 2>/dev/null || exit 1
  say "downloading Prometheus $version (once; kept in $cache)"
  archive=prometheus-$version.linux-$arch
  fetch "$downloads/v$version/$archive.tar.gz" "$1/$archive.tar.gz"
  (cd "$1" && awk -v name="$archive.tar.gz" '$2 == name' sums | sha256sum --check --status) \
    || { say "the checksum of $archive.tar.gz is wrong"; exit 1; }
  tar --extract --gzip --file "$1/$archive.tar.gz" --directory "$1" --strip-components 1 \
    "$archive/prometheus" "$archive/promtool"
  rm "$1/$archive.tar.gz" "$1/sums"
)

package() ( # FOLDER
  set -e
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || exit 1
  say "unpacking Debian's package of Prometheus (once; kept in $cache)"
  work=$1/work
  mkdir -p "$work/state/partial"
  cd "$work"
  # apt verifies downloads by the signed lists. The machine's lists may be old or missing; then use our own.
  apt-get -qq download prometheus >/dev/null 2>&1 || {
    apt=(apt-get -qq -o Dir::State::lists="$work/state" -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache= -o APT::Sandbox::User=)
    # An unreachable source is not an error: what counts is whether the package can be downloaded.
    "${apt[@]}" update >/dev/null 2>&1 || true
    "${apt[@]}" download prometheus >/dev/null
  }
  dpkg-deb --extract prometheus_*.deb files
  cp files/usr/bin/prometheus files/usr/bin/promtool "$1/"
  cd "$1"
  rm -rf work
)

if [ -n "${SEELE_PROMETHEUS:-}" ]; then
  complete "$SEELE_PROMETHEUS" || fail "SEELE_PROMETHEUS=$SEELE_PROMETHEUS lacks one of: ${wanted[*]}"
  found "$SEELE_PROMETHEUS"
fi
on_path
in_cache "$cache/$version" "$cache"/debian-*

lock
in_cache "$cache/$version" "$cache"/debian-* # another call may have filled the cache meanwhile
attempt download
if [ $worked -eq 0 ] && complete "$new"; then
  keep "$cache/$version"
  found "$cache/$version"
fi
attempt package
if [ $worked -eq 0 ] && complete "$new"; then
  folder=$cache/debian-$("$new/promtool" --version 2>&1 | sed -n '1s/^promtool, version \([0-9.]*\).*/\1/p')
  keep "$folder"
  found "$folder"
fi
fail "not found: neither the download from github.com nor Debian's package worked; put ${wanted[*]} into a folder and set SEELE_PROMETHEUS to it"
