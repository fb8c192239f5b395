package netcfg

import (
	"encoding/binary"
	"net/netip"

	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rtnl"
)

// device is what the kernel reports about an interface.
type device struct {
	index    int
	name     string
	mtu      int
	mtu6     int // for IPv6 only, which may be less; 0: unknown
	ethernet bool
	hardware [6]byte
	queues   int
	loopback bool
	up       bool
	err      error
}

// skipStatistics is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h.
const skipStatistics = 8

// interfaces queries the interfaces of routes, and returns them by index. Each route
// without an error has an entry, whose err may be set.
func (r *Router) interfaces(routes []rtnl.RouteReply) map[int]*device {
	var indices []int
	for _, f := range routes {
		if f.Err == nil {
			indices = append(indices, f.Index)
		}
	}
	return r.devices(indices)
}

// devices queries interfaces by index.
func (r *Router) devices(indices []int) map[int]*device {
	devices := make(map[int]*device)
	var distinct []int
	for _, index := range indices {
		if devices[index] == nil {
			devices[index] = new(device)
			distinct = append(distinct, index)
		}
	}
	r.conn.Exchange(len(distinct), func(b *rtnl.Builder, i int) {
		var h [unix.SizeofIfInfomsg]byte
		binary.NativeEndian.PutUint32(h[4:], uint32(distinct[i]))
		b.Begin(unix.RTM_GETLINK, 0, h[:])
		b.Number(unix.IFLA_EXT_MASK, skipStatistics)
	}, func(i int, message []byte, err error) {
		*devices[distinct[i]] = parseDevice(message, err)
	})
	return devices
}

// parseDevice parses the answer (linux/rtnetlink.h: struct ifinfomsg).
func parseDevice(message []byte, err error) (d device) {
	if err != nil {
		return device{err: err}
	}
	var hardware []byte
	d.err = rtnl.Attributes(message, unix.SizeofIfInfomsg, func(a *nfnetlink.AttributeDecoder) {
		switch a.Type() {
		case unix.IFLA_IFNAME:
			d.name = a.String()
		case unix.IFLA_MTU:
			d.mtu = int(a.Uint32())
		case unix.IFLA_ADDRESS:
			hardware = a.Bytes()
		case unix.IFLA_NUM_RX_QUEUES:
			d.queues = int(a.Uint32())
		case unix.IFLA_AF_SPEC:
			a.Nested(func(families *nfnetlink.AttributeDecoder) error {
				for families.Next() {
					if families.Type() == unix.AF_INET6 {
						families.Nested(func(v6 *nfnetlink.AttributeDecoder) error {
							d.mtu6 = parseMTU6(v6)
							return nil
						})
					}
				}
				return nil
			})
		}
	})
	if d.err != nil {
		return device{err: d.err}
	}
	kind, flags := binary.NativeEndian.Uint16(message[2:]), binary.NativeEndian.Uint32(message[8:])
	d.index = int(int32(binary.NativeEndian.Uint32(message[4:])))
	d.up = flags&unix.IFF_UP != 0
	d.loopback = flags&unix.IFF_LOOPBACK != 0
	if kind == unix.ARPHRD_ETHER && len(hardware) == len(d.hardware) && !d.loopback {
		d.ethernet, d.hardware = true, [6]byte(hardware)
	}
	return d
}

// parseMTU6 finds the MTU among the IPv6 settings of an interface. Its number is 2
// (linux/ipv6.h: DEVCONF_MTU6). Routers announce it, and "sysctl net.ipv6.conf.DEV.mtu"
// shows it.
func parseMTU6(settings *nfnetlink.AttributeDecoder) (mtu int) {
	for settings.Next() {
		if settings.Type() != unix.IFLA_INET6_CONF {
			continue
		}
		if values := settings.Bytes(); len(values) >= 12 {
			mtu = int(int32(binary.NativeEndian.Uint32(values[8:])))
		}
	}
	return mtu
}

// route returns a route through the interface that has no MTU of its own.
func (d *device) route(source netip.Addr, v6 bool) Route {
	mtu := d.mtu
	if v6 && d.mtu6 > 0 {
		mtu = min(mtu, d.mtu6)
	}
	return Route{
		Source: source, Interface: d.name, Index: d.index, MTU: mtu,
		Ethernet: d.ethernet, Hardware: d.hardware, Queues: max(1, d.queues),
	}
}
