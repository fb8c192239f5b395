#!/bin/sh
# After the files are in place: .deb says "configure", .rpm how many versions there are.
set -e
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers sixfour.conf
elif ! getent group sixfour >/dev/null; then
	groupadd --system sixfour
	useradd --system --gid sixfour --home-dir / --no-create-home --shell /usr/sbin/nologin sixfour
fi
# The daemon reads it as its own user; it may name hosts that are nobody else's business.
if [ -e /etc/sixfour.toml ]; then
	chgrp sixfour /etc/sixfour.toml
	chmod 0640 /etc/sixfour.toml
fi
# Nothing is started: the sample has nobody's addresses. What runs goes on with the new program.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl try-restart --no-block sixfourd.service || echo "sixfourd does not start again: see journalctl -u sixfourd" >&2
fi
