package kernel_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport/kernel"
	"sixfour/transport/wiretest"
)

// BenchmarkReceive measures the program that receives, without what the kernel does before and
// after it: the time for one packet of 4in4, with one peer and with a hundred thousand.
func BenchmarkReceive(b *testing.B) {
	for _, c := range []struct{ peers, senders int }{{1, 1}, {100_000, 1}, {100_000, 1000}} {
		b.Run(fmt.Sprintf("%d of %d", c.senders, c.peers), func(b *testing.B) {
			p, err := kernel.Load()
			rigtest.Must(b, err)
			defer p.Close()
			mode, _ := encap.ModeByName("4in4")
			var pkts [][]byte
			for i := range c.peers {
				var a, in [4]byte
				binary.BigEndian.PutUint32(a[:], 0x64000000+uint32(i))
				binary.BigEndian.PutUint32(in[:], 0x0a000000+uint32(i)<<4)
				ends := ours
				ends.Remote = netip.AddrFrom4(a)
				peer := kernel.Peer(i)
				rigtest.Must(b, p.Receive(peer, theTunnel, mode.Between(ends)))
				rigtest.Must(b, p.Behind(theTunnel, netip.PrefixFrom(netip.AddrFrom4(in), 28), peer))
				rigtest.Must(b, p.Count(peer))
				if i%(c.peers/c.senders) == 0 {
					inner := plainPacket()
					copy(inner[12:], in[:])
					header.IPv4(inner).SetChecksum()
					back, err := encap.New(flip(mode.Between(ends)), 1500, encap.DefaultOptions, nil, encap.NewRecord())
					rigtest.Must(b, err)
					pkt, _ := wrap(back, inner)
					pkts = append(pkts, frame(pkt, 4))
				}
			}
			b.ResetTimer()
			var total int64
			for i := range b.N {
				each, err := p.TimeReceive(pkts[i%len(pkts)])
				rigtest.Must(b, err)
				total += int64(each)
			}
			b.ReportMetric(float64(total)/float64(b.N), "ns/packet")
		})
	}
}

// BenchmarkTCP measures a TCP connection through tunnels whose packets the programs carry,
// and through VXLAN, the kernel's own tunnel, in the same namespaces.
func BenchmarkTCP(b *testing.B) {
	for _, name := range []string{"vxlan", "4in6in4", "6in4", "4in4", "gre"} {
		b.Run(name, func(b *testing.B) {
			left, right := wiretest.Two(b)
			to := netip.MustParseAddr("10.1.0.2")
			if name == "vxlan" {
				vxlan(b, left, ours, "10.1.0.1/24")
				vxlan(b, right, remote, "10.1.0.2/24")
			} else {
				mode, _ := encap.ModeByName(name)
				connect(b, left, mode.Between(ours), "10.1.0.1/24", "2001:db8:1::1/64")
				connect(b, right, mode.Between(remote), "10.1.0.2/24", "2001:db8:1::2/64")
				if !mode.Carries(4) {
					to = netip.MustParseAddr("2001:db8:1::2")
				}
			}
			wiretest.Settle(b, left, to)
			for b.Loop() {
				r, err := rig.Load(wiretest.Soon(b), left, right, netip.AddrPortFrom(to, 0), rig.LoadOptions{Duration: time.Second})
				rigtest.Must(b, err)
				b.ReportMetric(r.BytesPerSecond()*8e-9, "Gbit/s")
			}
		})
	}
}

// vxlan makes one end of a VXLAN tunnel.
func vxlan(b *testing.B, ns *rig.Namespace, e encap.Endpoints, address string) {
	b.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "six0"
	rigtest.Must(b, ns.Handle().LinkAdd(&netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: 7, VtepDevIndex: index(b, ns, "eth0"), SrcAddr: e.Local.AsSlice(), Group: e.Remote.AsSlice(), Port: 4789, Learning: true,
	}))
	rigtest.Must(b, ns.AddAddr("six0", netip.MustParsePrefix(address)))
	rigtest.Must(b, ns.LinkUp("six0"))
}
