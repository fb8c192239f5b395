// Package systemd tells the service manager how the daemon is, as sd_notify(3) has
// it.
package systemd

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/text"
)

// Manager is who started the process. Any goroutine may use it. The zero Manager is
// none: telling it something does nothing.
type Manager struct{ socket string }

// Find is the manager that NOTIFY_SOCKET names, if it does.
func Find() Manager { return Manager{os.Getenv("NOTIFY_SOCKET")} }

// States are what Notify can tell.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Alive    = "WATCHDOG=1"
)

// Starting is that the start goes on, and may take so much longer.
func Starting(more time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", more.Microseconds())
}

// Watchdog is how often the manager wants to be told at least that this process is Alive,
// as sd_watchdog_enabled(3) has it; 0: it does not.
func Watchdog() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseUint(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil {
		return 0
	}
	const most = math.MaxInt64 / time.Microsecond
	return time.Duration(min(usec, uint64(most))) * time.Microsecond
}

// Reloading is that a reload begins, with the time, by which the manager tells it from
// one before (Type=notify-reload); Ready ends it.
func Reloading() string {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // there always is one
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000)
}

// Status is one line for people, which "systemctl status" shows.
func Status(format string, args ...any) string {
	return "STATUS=" + text.Cut(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; "), maxStatus)
}

// maxStatus keeps a status far below what a datagram holds, in bytes.
const maxStatus = 2000

// Notify tells the manager some states at once.
func (m Manager) Notify(states ...string) error { return m.send(strings.Join(states, "\n"), nil) }

// send sends one datagram, with descriptors, which stay the caller's.
func (m Manager) send(text string, control []byte) error {
	if m.socket == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		err = unix.Sendmsg(fd, []byte(text), control, &unix.SockaddrUnix{Name: m.socket}, unix.MSG_NOSIGNAL)
	}
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
