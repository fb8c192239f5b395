#!/bin/sh
# Runs before the files are removed. The argument is "remove" (.deb) or 0 (.rpm), unless another version follows.
set -e
case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now sixfourd.service
	fi
	;;
esac
