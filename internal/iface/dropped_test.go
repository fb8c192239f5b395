package iface

import (
	"net"
	"net/netip"
	"testing"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// TestLost: packets for which the queue of an interface has no room are counted.
func TestLost(t *testing.T) {
	ns, err := rig.New("lost")
	rigtest.Must(t, err)
	t.Cleanup(ns.Close)
	l := openLink(t, ns, prefixes("10.9.0.1/24"), nil)
	before, err := l.Dropped()
	rigtest.Must(t, err)
	const packets = 5000 // the queue holds hundreds
	rigtest.Must(t, ns.Do(func() error {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.9.0.2:9")))
		if err != nil {
			return err
		}
		defer c.Close()
		for range packets {
			_, _ = c.Write([]byte("lost")) // it may return an error or not
		}
		return nil
	}))
	after, err := l.Dropped()
	if err != nil || after-before < packets/4 || after-before > packets {
		t.Errorf("%d were lost before and %d after %d packets, %v", before, after, packets, err)
	}
	rigtest.Must(t, l.Close())
	if _, err := l.Dropped(); err == nil {
		t.Error("an interface that is closed has statistics")
	}
}
