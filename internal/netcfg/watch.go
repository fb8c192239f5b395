package netcfg

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	nfnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sixfour/internal/netns"
	"sixfour/internal/rtnl"
)

// rtnlgrpIPv6Rule is RTNLGRP_IPV6_RULE of linux/rtnetlink.h.
const rtnlgrpIPv6Rule = 19

// Watch calls changed, from one goroutine, for each message of the kernel about a change
// in a namespace, until ctx ends: links, addresses, routes and routing rules of both
// families and, if neighbours is set, neighbours. One command of an administrator causes
// many messages, so changed must return quickly.
func Watch(ctx context.Context, namespace string, neighbours bool, changed func(Change)) error {
	groups := []uint{
		unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, rtnlgrpIPv6Rule,
	}
	if neighbours {
		groups = append(groups, unix.RTNLGRP_NEIGH)
	}
	var sock *nl.NetlinkSocket
	if err := netns.In(namespace, func() (err error) {
		sock, err = nl.Subscribe(unix.NETLINK_ROUTE, groups...)
		return err
	}); err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	defer sock.Close()
	stop := context.AfterFunc(ctx, sock.Close)
	defer stop()
	for {
		messages, _, err := sock.Receive()
		if ctx.Err() != nil {
			return nil
		}
		// ENOBUFS means that messages were lost: then something changed, too.
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("watch routes: %w", err)
		}
		if len(messages) == 0 {
			changed(Change{})
		}
		for _, m := range messages {
			c := Change{Link: linkOf(m.Header.Type, m.Data)}
			if m.Header.Type == unix.RTM_NEWROUTE && m.Header.Flags&unix.NLM_F_REPLACE != 0 {
				c.Replaced = destinationOf(m.Data)
			}
			changed(c)
		}
	}
}

// Change is the subject of a message.
type Change struct {
	Link     int          // index of the link, or of the link that lost an address or route; 0: anything else
	Replaced netip.Prefix // destination of a route that replaced another one
}

// destinationOf returns the destination of a route.
func destinationOf(message []byte) (p netip.Prefix) {
	a := netip.IPv4Unspecified()
	if len(message) > 0 && message[0] == unix.AF_INET6 {
		a = netip.IPv6Unspecified()
	}
	// A message that cannot be parsed is about no route that we know.
	if err := rtnl.Attributes(message, unix.SizeofRtMsg, func(d *nfnetlink.AttributeDecoder) {
		if d.Type() == unix.RTA_DST {
			a, _ = netip.AddrFromSlice(d.Bytes())
		}
	}); err == nil {
		p = netip.PrefixFrom(a, int(message[1]))
	}
	return p
}

// linkOf returns the index of the link that a message is about, or from which an address
// or route was removed; 0 means neither.
func linkOf(kind uint16, message []byte) (index int) {
	switch {
	case kind == unix.RTM_NEWLINK && len(message) >= unix.SizeofIfInfomsg:
		return int(nl.DeserializeIfInfomsg(message).Index)
	case kind == unix.RTM_DELADDR && len(message) >= unix.SizeofIfAddrmsg:
		return int(binary.NativeEndian.Uint32(message[4:]))
	case kind == unix.RTM_DELROUTE:
		// A message that cannot be parsed is about no link that we know.
		_ = rtnl.Attributes(message, unix.SizeofRtMsg, func(a *nfnetlink.AttributeDecoder) {
			if a.Type() == unix.RTA_OIF {
				index = int(a.Uint32())
			}
		})
	}
	return index
}
