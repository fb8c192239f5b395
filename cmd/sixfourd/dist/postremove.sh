#!/bin/sh
# After the files went: .deb says "purge" when nothing shall stay, .rpm 0.
set -e
case "$1" in
purge | 0)
	if getent passwd sixfour >/dev/null; then userdel sixfour; fi
	if getent group sixfour >/dev/null; then groupdel sixfour; fi
	;;
esac
case "$1" in
remove | purge | 0)
	if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	;;
esac
