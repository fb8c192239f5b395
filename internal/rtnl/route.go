package rtnl

import (
	"encoding/binary"
	"net/netip"

	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// RouteRequest asks for the route to an address.
type RouteRequest struct {
	Remote netip.Addr
	Local  netip.Addr // source address; zero: the kernel's choice
	Mark   uint32
	Device int  // interface of the route; 0: any
	Table  bool // ask for the table entry from which the route in use comes (ip route get fibmatch)
}

// GetRoute adds a request for a route.
func (b *Builder) GetRoute(q RouteRequest) {
	h := [unix.SizeofRtMsg]byte{Family(q.Remote), uint8(q.Remote.BitLen())}
	flags := uint32(unix.RTM_F_LOOKUP_TABLE)
	if q.Local.IsValid() {
		h[2] = uint8(q.Local.BitLen())
	}
	if q.Table {
		flags |= unix.RTM_F_FIB_MATCH
	}
	binary.NativeEndian.PutUint32(h[8:], flags)
	b.Begin(unix.RTM_GETROUTE, 0, h[:])
	b.Address(unix.RTA_DST, q.Remote)
	if q.Local.IsValid() {
		b.Address(unix.RTA_SRC, q.Local)
	}
	if q.Device != 0 {
		b.Number(unix.RTA_OIF, uint32(q.Device))
	}
	if q.Mark != 0 {
		b.Number(unix.RTA_MARK, q.Mark)
	}
}

// RouteReply is what the kernel reports about a route.
type RouteReply struct {
	Kind    uint8 // RTN_UNICAST, RTN_LOCAL…
	Index   int   // of the interface
	Source  netip.Addr
	Gateway netip.Addr
	MTU     int   // 0: none of its own
	Bits    int   // prefix length of the destination
	Table   uint8 // RT_TABLE_MAIN…
	Metric  uint32
	Err     error
}

// ParseRoute parses the answer to GetRoute (linux/rtnetlink.h: struct rtmsg).
func ParseRoute(message []byte, err error) (f RouteReply) {
	if err != nil {
		return RouteReply{Err: err}
	}
	f.Err = Attributes(message, unix.SizeofRtMsg, func(a *nfnetlink.AttributeDecoder) {
		switch a.Type() {
		case unix.RTA_OIF:
			f.Index = int(a.Uint32())
		case unix.RTA_PRIORITY:
			f.Metric = a.Uint32()
		case unix.RTA_PREFSRC:
			f.Source, _ = netip.AddrFromSlice(a.Bytes())
		case unix.RTA_GATEWAY:
			f.Gateway, _ = netip.AddrFromSlice(a.Bytes())
		case unix.RTA_VIA: // a gateway of the other family, after two bytes with its family
			if via := a.Bytes(); len(via) > 2 {
				f.Gateway, _ = netip.AddrFromSlice(via[2:])
			}
		case unix.RTA_METRICS:
			a.Nested(func(m *nfnetlink.AttributeDecoder) error {
				for m.Next() {
					if m.Type() == unix.RTAX_MTU {
						f.MTU = int(m.Uint32())
					}
				}
				return nil
			})
		}
	})
	if f.Err == nil {
		f.Kind, f.Bits, f.Table = message[7], int(message[1]), message[4]
	}
	return f
}
