package iface

import (
	"encoding/binary"
	"fmt"

	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rtnl"
)

// Dropped returns how many packets to the interface the kernel dropped because its queues
// were full, since the interface was made. It may be called concurrently, and also after
// Close, when it returns an error.
func (l *Link) Dropped() (n uint64, err error) {
	const (
		headerLen = 12 // struct if_stats_msg of linux/if_link.h
		link64    = 1  // IFLA_STATS_LINK_64
		txDropped = 7 * 8
	)
	l.conn.Exchange(1, func(b *rtnl.Builder, _ int) {
		var h [headerLen]byte
		binary.NativeEndian.PutUint32(h[4:], uint32(l.index))
		binary.NativeEndian.PutUint32(h[8:], 1<<(link64-1)) // filter_mask
		b.Begin(unix.RTM_GETSTATS, 0, h[:])
	}, func(_ int, m []byte, e error) {
		if err = e; err != nil {
			return
		}
		err = rtnl.Attributes(m, headerLen, func(a *nfnetlink.AttributeDecoder) {
			if s := a.Bytes(); a.Type() == link64 && len(s) >= txDropped+8 {
				n = binary.NativeEndian.Uint64(s[txDropped:])
			}
		})
	})
	if err != nil {
		return 0, fmt.Errorf("ask for the statistics of %s: %w", l.set.Name, err)
	}
	return n, nil
}
