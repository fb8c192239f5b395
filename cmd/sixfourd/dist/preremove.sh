#!/bin/sh
# Before the files go: .deb says "remove", .rpm 0, unless another version follows.
set -e
case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now sixfourd.service
	fi
	;;
esac
