package connectip

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tune sets the options of a TCP connection that carries packets: little waits in the
// kernel, where the oldest packets cannot be dropped, and what is not acknowledged ends the
// connection.
func tune(c net.Conn, keepalive time.Duration) error {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	const lowWater = 64 << 10
	if err := errors.Join(t.SetNoDelay(true), t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepalive, Interval: keepalive, Count: 3})); err != nil {
		return err
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	control := raw.Control(func(fd uintptr) {
		err = errors.Join(
			os.NewSyscallError("setsockopt TCP_NOTSENT_LOWAT", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, lowWater)),
			os.NewSyscallError("setsockopt TCP_USER_TIMEOUT", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(maxUnacknowledged.Milliseconds()))))
	})
	return errors.Join(control, err)
}

// maxUnacknowledged is after how long without an acknowledgment a TCP connection ends.
const maxUnacknowledged = 20 * time.Second
