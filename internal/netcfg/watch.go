package netcfg

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	nfnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// rtnlgrpIPv6Rule is RTNLGRP_IPV6_RULE of linux/rtnetlink.h.
const rtnlgrpIPv6Rule = 19

// Watch calls changed, from one goroutine, for each message by which the kernel
// tells that something has changed in a namespace, until ctx ends: links,
// addresses, routes and routing rules of both families or, if asked for, neighbours.
// If it is about a link, or an address or route that a link has lost, changed gets
// the link's index, else 0. One command of an administrator is a burst of messages:
// changed must only take note.
func Watch(ctx context.Context, namespace string, neighbours bool, changed func(link int)) error {
	groups := []uint{
		unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, rtnlgrpIPv6Rule,
	}
	if neighbours {
		groups = append(groups, unix.RTNLGRP_NEIGH)
	}
	var sock *nl.NetlinkSocket
	if err := In(namespace, func() (err error) {
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
		// ENOBUFS says that messages were lost: then something changed, too.
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("watch routes: %w", err)
		}
		if len(messages) == 0 {
			changed(0)
		}
		for _, m := range messages {
			changed(linkOf(m.Header.Type, m.Data))
		}
	}
}

// linkOf is the index of the link that a message is about, or of which something was
// taken away; 0: it is about something else.
func linkOf(kind uint16, message []byte) (index int) {
	switch {
	case kind == unix.RTM_NEWLINK && len(message) >= unix.SizeofIfInfomsg:
		return int(nl.DeserializeIfInfomsg(message).Index)
	case kind == unix.RTM_DELADDR && len(message) >= unix.SizeofIfAddrmsg:
		return int(binary.NativeEndian.Uint32(message[4:]))
	case kind == unix.RTM_DELROUTE:
		// What cannot be read is about nothing that we know.
		_ = attributes(message, unix.SizeofRtMsg, func(a *nfnetlink.AttributeDecoder) {
			if a.Type() == unix.RTA_OIF {
				index = int(a.Uint32())
			}
		})
	}
	return index
}
