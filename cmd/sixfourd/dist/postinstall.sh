#!/bin/sh
# Runs after the files are installed. The argument is "configure" (.deb) or the number of installed versions (.rpm).
set -e
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers sixfour.conf
elif ! getent group sixfour >/dev/null; then
	groupadd --system sixfour
	useradd --system --gid sixfour --home-dir / --no-create-home --shell /usr/sbin/nologin sixfour
fi
# The daemon reads it as its own user. Other users cannot: it may name hosts that they should not know.
if [ -e /etc/sixfour.toml ]; then
	chgrp sixfour /etc/sixfour.toml
	chmod 0640 /etc/sixfour.toml
fi
# Nothing is started: the sample does not have the addresses of this host. A running daemon
# is restarted with the new program, but only if the new program accepts the
# configuration: otherwise all tunnels would end here.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	pid=$(systemctl show -p MainPID --value sixfourd.service) || pid=0
	# Use the arguments of the running daemon.
	if [ "${pid:-0}" != 0 ] && ! (cd / && xargs -0 sh -c 'shift; exec /usr/local/sbin/sixfourd "$@" -check-start' sh) <"/proc/$pid/cmdline"; then
		echo "sixfourd is not restarted, because the new version does not accept its configuration (see above). The old version continues to run. Correct the file, then: systemctl restart sixfourd" >&2
	else
		systemctl try-restart --no-block sixfourd.service || echo "sixfourd does not start again: see journalctl -u sixfourd" >&2
	fi
fi
