package jsontun

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Times after which TCP ends a connection whose other end does not answer.
const (
	keepalive   = 60 * time.Second // without data, until the first probe
	probing     = 10 * time.Second // between probes
	userTimeout = 90 * time.Second // without an acknowledgment of data or of a probe
)

// lowWater is how many bytes that were not sent yet wait in the kernel, where the oldest packets
// cannot be dropped.
const lowWater = 64 << 10

// tune sets the options of a TCP connection. Each packet is sent at once: clients of the
// original program take what one read returns for one packet.
func tune(fd int) error {
	var errs []error
	for _, o := range [...]struct {
		name                 string
		level, option, value int
	}{
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepalive / time.Second)},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(probing / time.Second)},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, int((userTimeout - keepalive) / probing)},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout / time.Millisecond)},
		{"TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, lowWater},
	} {
		errs = append(errs, os.NewSyscallError("setsockopt "+o.name, unix.SetsockoptInt(fd, o.level, o.option, o.value)))
	}
	return errors.Join(errs...)
}
