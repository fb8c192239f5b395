package transport_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/transport"
	"sixfour/transport/wiretest"
)

// shardCase is one encapsulation: the headers before an inner packet.
type shardCase struct {
	protocol byte
	gre      []byte
	inner    []func(flow byte) []byte
}

var shardCases = map[string]shardCase{
	"6":                      {header.ProtoIPv6, nil, flows6},
	"4":                      {header.ProtoIPv4, nil, flows4},
	"GRE 6":                  {header.GRE, []byte{0, 0, 0x86, 0xdd}, flows6},
	"GRE 4":                  {header.GRE, []byte{0, 0, 8, 0}, flows4},
	"GRE with key 6":         {header.GRE, []byte{0x20, 0, 0x86, 0xdd, 0, 0, 0, 7}, flows6},
	"GRE with checksum 4":    {header.GRE, []byte{0x80, 0, 8, 0, 1, 2, 0, 0}, flows4},
	"GRE with sequence 4":    {header.GRE, []byte{0x10, 0, 8, 0, 1, 2, 0, 0}, flows4},
	"GRE with two fields 6":  {header.GRE, []byte{0x30, 0, 0x86, 0xdd, 0, 0, 0, 7, 0, 0, 0, 8}, flows6},
	"GRE with all fields 4":  {header.GRE, []byte{0xb0, 0, 8, 0, 1, 2, 0, 0, 0, 0, 0, 7, 0, 0, 0, 8}, flows4},
	"GRE with all fields 6":  {header.GRE, []byte{0xb0, 0, 0x86, 0xdd, 1, 2, 0, 0, 0, 0, 0, 7, 0, 0, 0, 8}, flows6},
	"GRE with key and sum 6": {header.GRE, []byte{0xa0, 0, 0x86, 0xdd, 1, 2, 0, 0, 0, 0, 0, 7}, flows6},
}

// Fields that differ between packets of one flow are random.
var flows6 = []func(byte) []byte{
	func(flow byte) []byte { return six(header.TCP, 0, ports(flow)) },
	func(flow byte) []byte { return six(header.UDP, 0, ports(flow)) },
	func(flow byte) []byte { return six(header.ICMPv6, flow, ports(byte(rand.Uint32()))) },
	func(flow byte) []byte { return six(header.FragmentHdr, flow, ports(byte(rand.Uint32()))) },
	func(flow byte) []byte { return six(header.ProtoIPv4, 0, four(header.UDP, 0, 0, ports(flow))) },
	func(flow byte) []byte {
		return six(header.ProtoIPv4, 0, four(header.ICMP, 0, flow, ports(byte(rand.Uint32()))))
	},
	func(flow byte) []byte {
		return six(header.ProtoIPv4, 0, four(header.UDP, 0x20, flow, ports(byte(rand.Uint32()))))
	},
}

var flows4 = []func(byte) []byte{
	func(flow byte) []byte { return four(header.TCP, 0, 0, ports(flow)) },
	func(flow byte) []byte { return four(header.UDP, 0x40, 0, ports(flow)) },
	func(flow byte) []byte { return four(header.ICMP, 0, flow, ports(byte(rand.Uint32()))) },
	func(flow byte) []byte { return four(header.TCP, 0x20, flow, ports(byte(rand.Uint32()))) }, // a fragment
	func(flow byte) []byte { return four(header.UDP, 1, flow, ports(byte(rand.Uint32()))) },
}

func ports(n byte) []byte { return append([]byte{n, 1, 0, 53}, make([]byte, 20)...) }

// six returns an IPv6 packet with a given part of the destination.
func six(next, dest byte, payload []byte) []byte {
	p := make([]byte, header.IPv6Len)
	p[0], p[1], p[6], p[7] = 0x60, byte(rand.Uint32()&15), next, byte(rand.Uint32())
	p[8], p[23], p[24], p[39] = 0xfc, 1, 0xfc, dest
	return append(p, payload...)
}

// four returns an IPv4 packet with given flags and a given part of the destination.
func four(protocol, flags, dest byte, payload []byte) []byte {
	p := make([]byte, header.IPv4Len)
	p[0], p[5], p[6], p[8], p[9] = 0x45, byte(rand.Uint32()), flags, byte(rand.Uint32()), protocol
	p[12], p[15], p[16], p[19] = 10, 1, 10, dest
	return append(p, payload...)
}

// TestShards: each packet arrives at one shard, all packets of a flow at the same one,
// and flows at all of them.
func TestShards(t *testing.T) {
	n := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		for name, c := range shardCases {
			t.Run(name, func(t *testing.T) { testShards(t, newShards(t, n, e, c.protocol), e, c) })
		}
	})
}

func testShards(t *testing.T, shards *shards, e wiretest.Ends, c shardCase) {
	const flows, each = 30, 3
	for kind, inner := range c.inner {
		var pkts []transport.Packet
		for n := range flows * each {
			flow := byte(n % flows)
			// The last four bytes are the packet's number.
			p := append(append([]byte(nil), c.gre...), inner(flow)...)
			pkts = append(pkts, transport.Packet{Head: e.Outer(c.protocol, binary.BigEndian.AppendUint32(p, uint32(n)))})
		}
		shardOf := shards.carry(t, pkts, func(pkt []byte) int { return int(binary.BigEndian.Uint32(pkt[len(pkt)-4:])) })
		used := make(map[int]bool)
		for n := range flows * each {
			used[shardOf[n]] = true
			if first := shardOf[n%flows]; shardOf[n] != first {
				t.Errorf("kind %d: flow %d at shards %d and %d", kind, n%flows, first, shardOf[n])
			}
		}
		if len(used) != shardCount {
			t.Errorf("kind %d: all %d flows came to %d of %d shards", kind, flows, len(used), shardCount)
		}
	}
}

// TestShardsGetEverything: truncated packets, and packets that are not ours, also arrive
// at one shard.
func TestShardsGetEverything(t *testing.T) {
	n := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		for name, c := range shardCases {
			t.Run(name, func(t *testing.T) {
				shards := newShards(t, n, e, c.protocol)
				for _, inner := range c.inner {
					whole := append(append([]byte(nil), c.gre...), inner(1)...)
					var pkts []transport.Packet
					for n := range whole {
						pkts = append(pkts, transport.Packet{Head: e.Outer(c.protocol, whole[:n])})
					}
					none := len(e.Outer(c.protocol, nil))
					shards.carry(t, pkts, func(pkt []byte) int { return len(pkt) - none })
				}
			})
		}
		for name, c := range map[string]struct {
			protocol byte
			payload  []byte
		}{
			"version 1 of GRE":    {header.GRE, []byte{0x30, 1, 0x88, 0x0b}},
			"GRE with routing":    {header.GRE, []byte{0x40, 0, 8, 0}},
			"GRE with Ethernet":   {header.GRE, []byte{0, 0, 0x65, 0x58}},
			"IPv4 with options":   {header.ProtoIPv4, []byte{0x46}},
			"an unknown protocol": {protocol, nil},
		} {
			t.Run(name, func(t *testing.T) {
				pkt := e.Outer(c.protocol, append(c.payload, make([]byte, 100)...))
				newShards(t, n, e, c.protocol).carry(t, []transport.Packet{{Head: pkt}}, func([]byte) int { return 0 })
			})
		}
	})
}

const shardCount = 3

// shards are receivers that share the packets to the right end.
type shards struct {
	tx  *transport.RawSender
	got chan shardPacket
}

type shardPacket struct {
	shard int
	data  []byte
}

func newShards(t *testing.T, n *rig.Namespace, e wiretest.Ends, protocol byte) *shards {
	s := &shards{wiretest.Dial(t, n, e.Left, transport.Options{}), make(chan shardPacket, 1<<12)}
	for i := range shardCount {
		rx := wiretest.Listen(t, n, e.Right, int(protocol), transport.Shard{Index: i, Count: shardCount}, transport.Options{})
		go func() {
			bufs, meta := wiretest.Buffers(transport.BatchSize, 2000), make([]transport.Meta, transport.BatchSize)
			for {
				n, err := rx.Receive(bufs, meta)
				if err != nil {
					return
				}
				for k := range n {
					s.got <- shardPacket{i, bytes.Clone(bufs[k][:meta[k].Size])}
				}
			}
		}()
	}
	return s
}

// carry sends packets twice, and returns the shard at which each arrived. It reports
// packets that arrive at two shards, or at none. number identifies a packet.
func (s *shards) carry(t *testing.T, pkts []transport.Packet, number func(pkt []byte) int) []int {
	t.Helper()
	shardOf, times := make([]int, len(pkts)), make([]int, len(pkts))
	for round := range 2 {
		if n, err := s.tx.Send(pkts); err != nil {
			t.Fatalf("packet %d: %v", n, err)
		}
		for range pkts {
			select {
			case p := <-s.got:
				n := number(p.data)
				if times[n]++; times[n] > 1 && (shardOf[n] != p.shard || times[n] > round+1) {
					t.Fatalf("packet %d came to shards %d and %d", n, shardOf[n], p.shard)
				}
				shardOf[n] = p.shard
				if sent := wiretest.Arrived(pkts[n].Head); !bytes.Equal(p.data, sent) {
					t.Fatalf("packet %d\n got %x\nsent %x", n, p.data, sent)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("packets are missing: %v", times)
			}
		}
	}
	return shardOf
}
