#!/bin/sh
# Installs this release under /opt/pulse, where `pulse update apply` puts later ones beside it.
#
#   ./install.sh release.pub
#
# release.pub is the key that you have verified the archive with; updates are taken from its owner alone.
set -eu
cd "$(dirname "$0")"

key=${1:?give the public key that the archive was verified with}
version=$(cat VERSION)
home=/opt/pulse

id pulse >/dev/null 2>&1 || useradd --system --user-group --no-create-home --home-dir /var/lib/pulse --shell /usr/sbin/nologin pulse
install -d -m 0755 "$home" "$home/releases" "$home/releases/$version"
install -d -m 0700 -o pulse -g pulse /var/lib/pulse
# Nobody but root may change what runs, not even the service.
install -m 0755 pulse "$home/releases/$version/pulse"
install -m 0644 "$key" "$home/release.pub"
ln -sfn "releases/$version" "$home/current.new"
mv -T "$home/current.new" "$home/current"
[ -e /etc/default/pulse ] || install -D -m 0644 default /etc/default/pulse
install -d /etc/systemd/system /usr/local/bin
sed "s|^ExecStart=.*|ExecStart=$home/current/pulse serve|" pulse.service >/etc/systemd/system/pulse.service
cat >/usr/local/bin/pulse <<WRAPPER
#!/bin/sh
if [ -z "\$PULSE_DATA_DIR" ] && [ -w /var/lib/pulse ]; then
    export PULSE_DATA_DIR=/var/lib/pulse
fi
exec $home/current/pulse "\$@"
WRAPPER
chmod 0755 /usr/local/bin/pulse
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable --now pulse.service
fi
echo "Pulse $version is installed in $home."
