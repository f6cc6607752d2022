#!/usr/bin/env bash
# Prints a folder with etcd, kube-apiserver, kube-controller-manager and kubectl, and with the programs named by arguments
# (kubelet, kube-scheduler, kube-proxy, pause).
#
# Looks in this order: SEELE_KUBERNETES or KUBEBUILDER_ASSETS (folders), PATH, the cache, a download of the official
# binaries, and a build from Debian's source package (as root, ten to fifteen minutes on two cores, with compilers from
# apt). Otherwise only the cache is written to: SEELE_CACHE, by default ~/.cache/seele.
set -euo pipefail

version=v1.34.1 # to download
etcd_version=v3.6.4
downloads=${SEELE_KUBERNETES_DOWNLOADS:-https://dl.k8s.io/release}
etcd_downloads=${SEELE_ETCD_DOWNLOADS:-https://github.com/etcd-io/etcd/releases/download}

wanted=(etcd kube-apiserver kube-controller-manager kubectl)
for name in "$@"; do
  case " ${wanted[*]} " in *" $name "*) ;; *) wanted+=("$name") ;; esac
done
tool=kubernetes
# shellcheck source=tools/cached.sh
source "$(dirname "$0")/cached.sh"

checked() { # FILE SHA256
  echo "$2  $1" | sha256sum --check --status || { say "the checksum of $(basename "$1") is wrong"; return 1; }
}

download() ( # FOLDER
  set -e
  command -v curl >/dev/null || exit 1
  case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) exit 1 ;; esac
  fetch "$downloads/$version/bin/linux/$arch/kube-apiserver.sha256" "$1/sum" 2>/dev/null || exit 1
  say "downloading Kubernetes $version and etcd $etcd_version (once; kept in $cache)"
  for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl kube-proxy; do
    fetch "$downloads/$version/bin/linux/$arch/$name" "$1/$name"
    fetch "$downloads/$version/bin/linux/$arch/$name.sha256" "$1/sum"
    checked "$1/$name" "$(cat "$1/sum")"
    chmod +x "$1/$name"
  done
  archive=etcd-$etcd_version-linux-$arch
  fetch "$etcd_downloads/$etcd_version/$archive.tar.gz" "$1/etcd.tar.gz"
  fetch "$etcd_downloads/$etcd_version/SHA256SUMS" "$1/sum"
  checked "$1/etcd.tar.gz" "$(awk -v name="$archive.tar.gz" '$2 == name {print $1}' "$1/sum")"
  tar --extract --gzip --file "$1/etcd.tar.gz" --directory "$1" --strip-components 1 "$archive/etcd"
  rm "$1/etcd.tar.gz" "$1/sum"
)

# The machine's package sources, for source packages. Written to our own folder: nothing under /etc changes.
source_lists() { # FOLDER
  local list
  mkdir -p "$1"
  for list in /etc/apt/sources.list.d/*.sources; do
    [ -f "$list" ] && sed 's/^Types:.*/Types: deb-src/' "$list" >"$1/$(basename "$list")"
  done
  for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$list" ] && sed -n 's/^deb /deb-src /p' "$list" >"$1/own-$(basename "$list" .list).list"
  done
  return 0
}

install_tools() {
  local missing=() pair
  for pair in go:golang-go etcd:etcd-server rsync:rsync jq:jq dpkg-source:dpkg-dev make:make gcc:gcc patch:patch xz:xz-utils; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ -f /usr/include/stdlib.h ] || missing+=(libc6-dev)
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    say "building it requires packages: run 'apt-get install ${missing[*]}'"
    return 1
  fi
  apt_install "${missing[@]}" || { say "apt-get cannot install ${missing[*]}"; return 1; }
}

# The vendored reflect2 1.0.1 iterates over maps as before Go 1.18. With a later Go it overwrites other memory, and the API
# server crashes (SIGSEGV in mapiterinit) after serving pods for minutes. The patch allocates the iterator as version 1.0.2
# does.
mend_reflect2() {
  patch --quiet --strip=1 <<'PATCH'
--- a/vendor/github.com/modern-go/reflect2/unsafe_link.go
+++ b/vendor/github.com/modern-go/reflect2/unsafe_link.go
@@ -27,9 +27,14 @@ func mapaccess(rtype unsafe.Pointer, m unsafe.Pointer, key unsafe.Pointer) (val
 
 // m escapes into the return value, but the caller of mapiterinit
 // doesn't let the return value escape.
-//go:noescape
-//go:linkname mapiterinit reflect.mapiterinit
-func mapiterinit(rtype unsafe.Pointer, m unsafe.Pointer) *hiter
+//go:linkname reflectMapiterinit reflect.mapiterinit
+func reflectMapiterinit(rtype unsafe.Pointer, m unsafe.Pointer, it *hiter)
+
+func mapiterinit(rtype unsafe.Pointer, m unsafe.Pointer) *hiter {
+	it := new(hiter)
+	reflectMapiterinit(rtype, m, it)
+	return it
+}
 
 //go:noescape
 //go:linkname mapiternext reflect.mapiternext
@@ -44,7 +49,9 @@ func ifaceE2I(rtype unsafe.Pointer, src interface{}, dst unsafe.Pointer)
 type hiter struct {
 	key   unsafe.Pointer // Must be in first position.  Write nil to indicate iteration end (see cmd/internal/gc/range.go).
 	value unsafe.Pointer // Must be in second position (see cmd/internal/gc/range.go).
-	// rest fields are ignored
+	// The rest is the runtime's: first its pointers, so that the collector sees them.
+	pointers [6]unsafe.Pointer
+	words    [6]uintptr
 }
 
 // add returns p+x.
PATCH
}

# The vendored kube-openapi treats a string that equals a zero value as null. Since Go 1.17 this includes the empty string,
# so the API server refuses custom objects that have one.
mend_openapi() {
  local file=vendor/k8s.io/kube-openapi/pkg/validation/validate/type.go
  sed --in-place 's/if data == nil || reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data)) {/if data == nil {/' "$file"
  grep --quiet 'if data == nil {' "$file"
}

build() ( # FOLDER
  set -e
  command -v apt-get >/dev/null || exit 1
  say "building Kubernetes from Debian's source package (once, ten to fifteen minutes; kept in $cache)"
  install_tools
  work=$1/build
  source_lists "$work/lists"
  mkdir -p "$work/state/partial"
  apt=(apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/lists" -o Dir::State::lists="$work/state"
    -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache= -o APT::Sandbox::User=)
  # An unreachable source is not an error: what counts is whether the package can be downloaded.
  "${apt[@]}" update >/dev/null 2>&1 || true
  cd "$work"
  "${apt[@]}" source kubernetes >/dev/null
  cd kubernetes-*/
  mend_reflect2
  mend_openapi
  say "compiling $(basename "$PWD") with $(go version)"
  make WHAT="cmd/kube-apiserver cmd/kube-controller-manager cmd/kube-scheduler cmd/kubelet cmd/kubectl cmd/kube-proxy" \
    GOFLAGS=-p=2 >&2
  cp _output/local/bin/linux/*/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kubectl,kube-proxy} "$1/"
  gcc -Os -Wall -static -o "$1/pause" build/pause/linux/pause.c
  cp "$(command -v etcd)" "$1/etcd"
  cd "$1"
  chmod -R u+w build
  rm -rf build
)

for folder in "${SEELE_KUBERNETES:-}" "${KUBEBUILDER_ASSETS:-}"; do
  if [ -n "$folder" ] && complete "$folder"; then found "$folder"; fi
done
[ -z "${SEELE_KUBERNETES:-}" ] || fail "SEELE_KUBERNETES=$SEELE_KUBERNETES lacks one of: ${wanted[*]}"
on_path
in_cache "$cache/$version" "$cache"/debian-*

lock
in_cache "$cache/$version" "$cache"/debian-* # another call may have filled the cache meanwhile
attempt download
if [ $worked -eq 0 ] && complete "$new"; then
  keep "$cache/$version"
  found "$cache/$version"
fi
attempt build
if [ $worked -eq 0 ] && complete "$new"; then
  folder=$cache/debian-$("$new/kube-apiserver" --version | sed 's/^Kubernetes v//; s/[^0-9A-Za-z.].*//')
  keep "$folder"
  found "$folder"
fi
fail "not found: neither the download from dl.k8s.io nor the build from Debian's source package worked; put ${wanted[*]} into a folder and set SEELE_KUBERNETES to it"
