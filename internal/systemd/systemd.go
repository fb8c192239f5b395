// Package systemd reports the state of the daemon to the service manager, as in
// sd_notify(3).
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

// Manager is the service manager that started the process. It may be used concurrently.
// The zero Manager means that there is none: its methods do nothing.
type Manager struct{ socket string }

// Find returns the manager that NOTIFY_SOCKET names, or the zero Manager.
func Find() Manager { return Manager{os.Getenv("NOTIFY_SOCKET")} }

// States for Notify.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Alive    = "WATCHDOG=1"
)

// Starting is the state that the start continues, and may take that much longer.
func Starting(more time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", more.Microseconds())
}

// Watchdog returns how often the manager expects the state Alive from this process at
// least, as in sd_watchdog_enabled(3); 0: it does not.
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

// Reloading is the state that a reload begins. It contains the time, which distinguishes
// it from an earlier one (Type=notify-reload). The state Ready ends it.
func Reloading() string {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // this clock always exists
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000)
}

// Status is one line of text, which "systemctl status" shows.
func Status(format string, args ...any) string {
	return "STATUS=" + text.Cut(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; "), maxStatus)
}

// maxStatus bounds a status, in bytes; a datagram could hold far more.
const maxStatus = 2000

// Notify sends states to the manager in one message.
func (m Manager) Notify(states ...string) error { return m.send(strings.Join(states, "\n"), nil) }

// send sends one datagram, with descriptors, which the caller keeps.
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
