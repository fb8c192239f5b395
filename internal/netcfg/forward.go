package netcfg

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rtnl"
)

// AllInterfaces is the index of the settings for all interfaces.
const AllInterfaces = -1

// From linux/netconf.h and linux/ip.h.
const (
	netconfIndex      = 1
	netconfForwarding = 2
	netconfRPFilter   = 3
	confForwarding    = 1 // IPV4_DEVCONF_FORWARDING
)

// Conf holds the kernel's settings for packets of one IP version that arrive on an
// interface.
type Conf struct {
	Forwarding bool
	RPFilter   int // IPv4 only: 0 none, 1 strict, 2 loose (RFC 3704)
}

// Conf returns the settings of an interface, or those of AllInterfaces; v is 4 or 6. It
// does not use /proc/sys, which may be hidden from a service.
func (r *Router) Conf(v, index int) (c Conf, err error) {
	var fam uint8 = unix.AF_INET
	if v == 6 {
		fam = unix.AF_INET6
	}
	r.conn.Exchange(1, func(b *rtnl.Builder, _ int) {
		b.Begin(unix.RTM_GETNETCONF, 0, []byte{fam, 0, 0, 0})
		b.Number(netconfIndex, uint32(index))
	}, func(_ int, message []byte, e error) { c, err = parseConf(message, e) })
	if err != nil {
		return Conf{}, fmt.Errorf("ask for the settings of interface %d: %w", index, err)
	}
	return c, nil
}

// parseConf parses the answer (linux/netconf.h: struct netconfmsg).
func parseConf(message []byte, err error) (c Conf, _ error) {
	if err != nil {
		return c, err
	}
	err = rtnl.Attributes(message, 4, func(a *nfnetlink.AttributeDecoder) {
		switch a.Type() {
		case netconfForwarding:
			c.Forwarding = a.Uint32() != 0
		case netconfRPFilter:
			c.RPFilter = int(a.Uint32())
		}
	})
	return c, err
}

// SetForwarding turns the forwarding of IPv4 packets that arrive on an interface on or
// off. If /proc/sys is not writable, it uses netlink. Then the device keeps merging
// packets (LRO) if it did before, which it must not do with packets that are forwarded.
func (r *Router) SetForwarding(name string, index int, on bool) error {
	value := uint32(0)
	if on {
		value = 1
	}
	if err := os.WriteFile(filepath.Join("/proc/sys/net/ipv4/conf", name, "forwarding"), fmt.Append(nil, value), 0); err == nil {
		return nil
	}
	var err error
	r.conn.Exchange(1, func(b *rtnl.Builder, _ int) {
		var h [unix.SizeofIfInfomsg]byte
		binary.NativeEndian.PutUint32(h[4:], uint32(index))
		b.Begin(unix.RTM_SETLINK, unix.NLM_F_ACK, h[:])
		var inet, spec rtnl.Builder
		inet.Nested(unix.IFLA_INET_CONF, confForwarding, value)
		spec.Attribute(unix.AF_INET|unix.NLA_F_NESTED, inet)
		b.Attribute(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, spec)
	}, func(_ int, _ []byte, e error) { err = e })
	if err != nil {
		return fmt.Errorf("set net.ipv4.conf.%s.forwarding to %d: %w", name, value, err)
	}
	return nil
}
