package transport_test

import (
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/wiretest"
)

// BenchmarkPorts sends batches through a port and receives them, on one goroutine and over
// loopback.
func BenchmarkPorts(b *testing.B) {
	host := wiretest.Alone(b)
	for _, e := range []wiretest.Ends{wiretest.Ends4, wiretest.Ends6} {
		version := map[bool]string{true: "IPv4", false: "IPv6"}[e.Left.Is4()]
		b.Run("raw/"+version, func(b *testing.B) {
			tx := wiretest.Dial(b, host, e.Left, transport.Options{})
			rx := wiretest.Listen(b, host, e.Right, header.ProtoIPv6, transport.Shard{}, transport.Options{})
			benchmarkPorts(b, tx, rx, e.Outer(header.ProtoIPv6, make([]byte, 1400)))
		})
		for _, headers := range []bool{false, true} {
			name := map[bool]string{false: "udp/", true: "udp with headers/"}[headers]
			b.Run(name+version, func(b *testing.B) {
				l, r := udp(b, host, e.Left, leftPort, transport.Shard{}, transport.Options{}), udp(b, host, e.Right, rightPort, transport.Shard{}, transport.Options{Headers: headers})
				tx := sender(b, host, l, transport.Options{})
				benchmarkPorts(b, tx, r, datagram(e, leftPort, rightPort, make([]byte, 1392)))
			})
		}
	}
}

func benchmarkPorts(b *testing.B, tx transport.Sender, rx transport.Port, pkt []byte) {
	const batch = transport.BatchSize / 2
	pkts := make([]transport.Packet, batch)
	for i := range pkts {
		pkts[i] = transport.Packet{Head: pkt[:48], Body: pkt[48:]}
	}
	size := 2048
	if _, merges := rx.(*transport.UDPPort); merges {
		size = transport.MaxPacket
	}
	bufs, meta := wiretest.Buffers(transport.BatchSize, size), make([]transport.Meta, transport.BatchSize)
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += batch {
		n, err := tx.Send(pkts)
		rigtest.Must(b, err)
		for n > 0 {
			got, err := rx.Receive(bufs, meta)
			rigtest.Must(b, err)
			for i := range meta[:got] {
				n -= datagrams(&meta[i], len(pkt)-rx.KernelHeaders())
			}
		}
	}
}

// datagrams returns how many packets of one size are in a buffer. First is the length of what
// a buffer with one of them has.
func datagrams(m *transport.Meta, first int) int {
	if m.Each == 0 {
		return 1
	}
	return 1 + (m.Size-first+m.Each-1)/m.Each
}
