#!/usr/bin/env bash
# Makes the release archive of a built program, its checksum, and with a key its signature; the same input gives the same
# archive, byte for byte.
#
#   packaging/archive/build.sh PROGRAM OUT_DIR [SECRET_KEY]
#
# SECRET_KEY is minisign's, made without a password (minisign -GW). SQLite and TLS are in the program; of the system it
# needs a C library at least as new as the one that it was built with, and nothing else.
set -euo pipefail
cd "$(dirname "$0")/../.."

program=$(realpath "${1:?the built program, such as target/release/pulse}") out=${2:?the folder to write to} key=${3:-}
version=$("$program" --version | cut -d' ' -f2)
name=pulse-$version-$(uname -m)-linux
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

others=$(objdump -p "$program" | awk '/NEEDED/ { print $2 }' | grep -vE '^(libc|libm|libgcc_s|ld-linux-x86-64|ld-linux-aarch64)\.so' || true)
[ -z "$others" ] || { echo "the program needs more than the C library: $others" >&2; exit 1; }

put() { install -D -m "$1" "$2" "$stage/$name/$3"; }
put 0755 "$program" pulse
strip --strip-debug "$stage/$name/pulse"
put 0755 packaging/archive/install.sh install.sh
put 0644 packaging/systemd/pulse.service pulse.service
put 0644 packaging/systemd/default default
put 0644 packaging/prometheus/pulse.rules.yml prometheus/pulse.rules.yml
put 0644 packaging/grafana/pulse.json grafana/pulse.json
for page in README.md docs/*.md docs/decisions/*.md; do put 0644 "$page" "$page"; done
echo "$version" >"$stage/$name/VERSION"

mkdir -p "$out"
archive=$out/$name.tar.gz
tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --mode=u=rwX,go=rX -cf - "$name" |
    gzip -9n >"$archive"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
if [ -n "$key" ]; then
    minisign -S -s "$key" -m "$archive" -t "pulse $version" >/dev/null
fi
echo "$archive"
