package ctl

import (
	"bytes"
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// untilQuit reads keys from the terminal, and calls quit for q. It returns when ctx ends or
// the terminal is gone.
func untilQuit(ctx context.Context, quit func()) {
	tty, err := os.Open("/dev/tty") // standard input may not be the terminal
	if err != nil {
		return
	}
	defer tty.Close()
	fd := int(tty.Fd())
	for ctx.Err() == nil {
		const milliseconds = 100
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, milliseconds)
		if err == unix.EINTR || err == nil && n == 0 {
			continue
		}
		var typed [64]byte
		if n, err = unix.Read(fd, typed[:]); err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		if bytes.ContainsAny(typed[:n], "qQ") {
			quit()
			return
		}
	}
}
