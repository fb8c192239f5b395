#!/bin/sh
# Runs after the files are removed. The argument is "purge" (.deb, if nothing is kept) or 0 (.rpm).
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
