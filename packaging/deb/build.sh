#!/usr/bin/env bash
# Makes the Debian package of a built program; the same input gives the same package, byte for byte.
#
#   packaging/deb/build.sh PROGRAM [OUT_DIR]
#
# Version and architecture are the program's own. Needs dpkg-deb and objdump (binutils).
set -euo pipefail
cd "$(dirname "$0")/../.."

program=$(realpath "${1:?the built program, such as target/release/pulse}") out=${2:-target/packages}
version=$("$program" --version | cut -d' ' -f2)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

put() { install -D -m "$1" "$2" "$stage/$3"; }
put 0755 "$program" usr/lib/pulse/pulse
strip --strip-debug "$stage/usr/lib/pulse/pulse"
put 0755 packaging/deb/pulse.sh usr/bin/pulse
put 0644 packaging/systemd/pulse.service lib/systemd/system/pulse.service
put 0644 packaging/systemd/default etc/default/pulse
put 0644 packaging/prometheus/pulse.rules.yml usr/share/pulse/prometheus/pulse.rules.yml
put 0644 packaging/grafana/pulse.json usr/share/pulse/grafana/pulse.json
put 0644 packaging/deb/copyright usr/share/doc/pulse/copyright
for page in README.md docs/*.md docs/decisions/*.md; do put 0644 "$page" "usr/share/doc/pulse/$page"; done
for shell in bash:bash-completion/completions/pulse zsh:zsh/vendor-completions/_pulse fish:fish/vendor_completions.d/pulse.fish; do
    file=$stage/usr/share/${shell#*:}
    install -d "$(dirname "$file")"
    "$program" completions "${shell%%:*}" >"$file"
done
printf 'pulse (%s) unstable; urgency=medium\n\n  * See the history of the sources.\n\n -- %s  %s\n' \
    "$version" "Pulse <pulse@localhost>" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" |
    gzip -9n >"$stage/usr/share/doc/pulse/changelog.gz"
find "$stage" -type d -exec chmod 0755 {} +
find "$stage/usr/share" -type f -exec chmod 0644 {} +

# The oldest C library that has everything the program asks for.
libc=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
install -d "$stage/DEBIAN"
cat >"$stage/DEBIAN/control" <<CONTROL
Package: pulse
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: Pulse <pulse@localhost>
Section: admin
Priority: optional
Depends: adduser, libc6 (>= ${libc#GLIBC_}), libgcc-s1
Recommends: ca-certificates
Installed-Size: $(du -sk --exclude=DEBIAN "$stage" | cut -f1)
Description: polls Proxmox fleets and contains what is broken
 Pulse watches Proxmox VE, Backup Server and Mail Gateway hosts, and plain HTTP
 and TCP endpoints, by polling them at an adaptive pace. Circuit breakers,
 backoff and a dead-letter queue keep a broken host from hurting the rest.
CONTROL
echo /etc/default/pulse >"$stage/DEBIAN/conffiles"
for script in postinst prerm postrm; do install -m 0755 "packaging/deb/$script" "$stage/DEBIAN/$script"; done
(cd "$stage" && find . -type f -not -path './DEBIAN/*' -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' md5sum) >"$stage/DEBIAN/md5sums"

mkdir -p "$out"
package=$out/pulse_${version}_$(dpkg --print-architecture).deb
dpkg-deb --root-owner-group -Zzstd --build "$stage" "$package" >/dev/null
echo "$package"
