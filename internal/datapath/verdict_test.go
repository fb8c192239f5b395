package datapath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/encap/source"
	"sixfour/internal/probe"
	"sixfour/transport"
)

// within returns a complete packet with a payload.
func within(src, dst string, protocol byte, payload ...byte) []byte {
	pkt := arriving(src, dst, protocol, payload...)
	if header.Version(pkt) == 4 {
		pkt[8] = 64
		binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
		header.IPv4(pkt).SetChecksum()
		return pkt
	}
	pkt[7] = 64
	binary.BigEndian.PutUint16(pkt[4:], uint16(len(pkt)-header.IPv6Len))
	return pkt
}

// toUs returns an outer packet of the 6in4 layer with a packet of the layer inside.
func toUs(src, dst string, protocol byte, payload ...byte) []byte {
	return within("198.51.100.1", "192.0.2.1", header.ProtoIPv6, within(src, dst, protocol, payload...)...)
}

// greToUs returns an outer packet with a GRE header before an IPv4 packet.
func greToUs(inner []byte) []byte {
	return within("198.51.100.1", "192.0.2.1", header.GRE, append([]byte{0, 0, 8, 0}, inner...)...)
}

// fragmentHeader returns a fragment header before an IPv4 packet.
func fragmentHeader(offset uint16, more byte) []byte {
	return []byte{header.ProtoIPv4, 0, byte(offset >> 8), byte(offset) | more, 0, 0, 0, 1}
}

// Destination options with a type that no node knows: the high bits of the type say whether
// the sender must get an error (RFC 8200 section 4.2).
var (
	toldOption   = []byte{header.ProtoIPv4, 0, 0x80 | 0x1e, 4, 0, 0, 0, 0}
	silentOption = []byte{header.ProtoIPv4, 0, 0x40 | 0x1e, 4, 0, 0, 0, 0}
	sourceRoute  = []byte{header.ProtoIPv4, 2, 0, 1, 0, 0, 0, 0, 0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9} // RFC 5095
)

// chatty is an agent that handles the packets that end with 1, drops those with 2, and
// passes on those with 3.
type chatty struct{ heard int }

func (a *chatty) Wants(inner []byte) bool { n := inner[len(inner)-1]; return n >= 1 && n <= 3 }

func (a *chatty) Receive(_ header.Outer, inner []byte) (bool, drop.Reason) {
	a.heard++
	switch inner[len(inner)-1] {
	case 1:
		return true, drop.None
	case 2:
		return false, drop.Spoof
	}
	return false, drop.None
}

func (*chatty) Hold([]byte) (bool, bool) { return false, false }

// ready is the stub of probes that recognizes everything that it is asked about.
type ready struct{ stub }

func (*ready) Returned([]byte) bool { return true }

func (*ready) AnswersBetween([]probe.Pair, []byte) bool { return true }

func (*ready) Answer(header.IPv6) bool { return true }

// The kinds of tunnels that the verdicts depend on.
type verdictLab struct {
	gre     bool // GRE in IPv4 instead of 4in6in4
	between bool // the two ends have inner addresses between which they probe
	agent   bool
	hub     bool // the peer may send from 10.0.0.0/8 only
}

func (l verdictLab) make(t *testing.T) (e *Plane, tun *Tunnel, p *Path, to *Wire) {
	layers := []encap.Layer{layer(encap.FourInSix, "fc00::1", "fc00::2", framing.GRE{}), layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})}
	if l.gre {
		layers = []encap.Layer{layer(encap.GREInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})}
	}
	e, tun, p, to = labOf(t, 1500, encap.DefaultOptions, layers...)
	if l.between {
		to.Between = []probe.Pair{{}}
	}
	if l.agent {
		tun.SetAgent(new(chatty))
	}
	if l.hub {
		table, err := source.NewPeers([]source.Peer[*Peer]{{Peer: p.Peer, Allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}})
		if err != nil {
			t.Fatal(err)
		}
		tun.Peers.Only = nil
		tun.Peers.Table.Store(table)
	}
	return e, tun, p, to
}

// Every kind of packet gets its verdicts, in their order: the next one counts if what the
// first one says does not handle the packet. To decide changes nothing.
func TestDecide(t *testing.T) {
	const ours, theirs = "fc00::1", "fc00::2"
	udp := within("10.0.0.2", "10.0.0.1", header.UDP, make([]byte, 20)...)
	for _, c := range []struct {
		name string
		lab  verdictLab
		pkt  []byte
		as   drop.Reason // what decapsulate has returned; None: what it does return
		want []verdict
	}{
		{"IPv4 for the interface", verdictLab{}, tunnelled("198.51.100.1", "10.0.0.2", 30), 0, []verdict{verdictDeliver}},
		{"IPv6 for the interface", verdictLab{}, toUs("fd00::2", "fd00::1", header.NoNextHeader), 0, []verdict{verdictDeliver}},
		{"of a hub", verdictLab{hub: true}, tunnelled("198.51.100.1", "10.0.0.2", 30), 0, []verdict{verdictDeliver}},
		{"in GRE", verdictLab{gre: true}, greToUs(udp), 0, []verdict{verdictDeliver}},
		{"agent does not want it", verdictLab{agent: true}, tunnelled("198.51.100.1", "10.0.0.2", 30), 0, []verdict{verdictDeliver}},

		{"to our end", verdictLab{}, toUs(theirs, ours, header.ICMPv6, icmp.EchoRequest6, 0, 0, 0, 0, 0, 0, 0), 0, []verdict{verdictOurs, verdictDeliver}},
		{"to our end, of a hub, from elsewhere", verdictLab{hub: true}, toUs("fc00::9", ours, header.NoNextHeader), 0, []verdict{verdictOurs, verdictDeliver}},
		{"to the far end", verdictLab{}, toUs(ours, theirs, header.NoNextHeader), 0, []verdict{verdictDeliver}},
		{"maybe an answer to a probe", verdictLab{between: true}, tunnelled("198.51.100.1", "10.0.0.2", 30), 0, []verdict{verdictProbe, verdictDeliver}},
		{"agent wants it", verdictLab{agent: true}, toUs("fd00::2", "fd00::1", header.UDP, 0, 0, 0, 3), 0, []verdict{verdictControl, verdictDeliver}},
		{"all of these", verdictLab{agent: true, between: true}, toUs(theirs, ours, header.UDP, 0, 0, 0, 3), 0,
			[]verdict{verdictProbe, verdictOurs, verdictControl, verdictDeliver}},

		{"fragment", verdictLab{}, toUs(theirs, ours, header.FragmentHdr, append(fragmentHeader(0, 1), udp...)...), 0, []verdict{verdictFragment, verdictDrop}},
		{"fragment from elsewhere", verdictLab{}, toUs("fc00::9", ours, header.FragmentHdr, append(fragmentHeader(0, 1), udp...)...), 0, []verdict{verdictDrop}},
		{"outer fragment", verdictLab{}, outerFragment(tunnelled("198.51.100.1", "10.0.0.2", 30)), 0, []verdict{verdictDrop}},

		{"control message of the framing", verdictLab{}, tunnelled("198.51.100.1", "10.0.0.2", 30), drop.UnknownProtocol, []verdict{verdictMessage}},
		{"bad option, sender is told", verdictLab{}, toUs(theirs, ours, header.DestOptions, append(toldOption, udp...)...), 0, []verdict{verdictProblem}},
		{"bad option", verdictLab{}, toUs(theirs, ours, header.DestOptions, append(silentOption, udp...)...), 0, []verdict{verdictProblem}},
		{"source route", verdictLab{}, toUs(theirs, ours, header.Routing, append(sourceRoute, udp...)...), 0, []verdict{verdictProblem}},

		{"keepalive", verdictLab{gre: true}, greToUs(within("192.0.2.1", "198.51.100.1", header.GRE, 0, 0, 0, 0)), 0, []verdict{verdictKeepalive, verdictDeliver}},
		{"keepalive behind a NAT", verdictLab{gre: true}, greToUs(within("203.0.113.7", "198.51.100.1", header.GRE, 0, 0, 0, 0)), 0, []verdict{verdictKeepalive, verdictDeliver}},
		{"keepalive between inner addresses", verdictLab{gre: true}, greToUs(within("10.0.0.1", "10.0.0.2", header.GRE, 0, 0, 0, 0)), drop.OwnSource, []verdict{verdictKeepalive}},
		{"keepalive, not from us", verdictLab{gre: true}, greToUs(within("10.0.0.1", "10.0.0.2", header.GRE, 0, 0, 0, 0)), 0, []verdict{verdictDeliver}},
		{"keepalive that a spoof check refuses", verdictLab{gre: true, hub: true}, greToUs(within("192.0.2.1", "198.51.100.1", header.GRE, 0, 0, 0, 0)), 0, []verdict{verdictKeepalive}},
		{"keepalive without GRE", verdictLab{}, toUs(theirs, "fd00::1", header.GRE, 0, 0, 0, 0), 0, []verdict{verdictDeliver}},

		{"own source", verdictLab{}, tunnelled("198.51.100.1", "10.0.0.2", 30), drop.OwnSource, []verdict{verdictDrop}},
		{"spoof", verdictLab{hub: true}, tunnelled("198.51.100.1", "11.0.0.2", 30), 0, []verdict{verdictDrop}},
		{"martian", verdictLab{}, tunnelled("198.51.100.1", "127.0.0.1", 30), 0, []verdict{verdictDrop}},
		{"cut off", verdictLab{}, tunnelled("198.51.100.1", "10.0.0.2", 30)[:70], 0, []verdict{verdictDrop}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, _, _, _ := c.lab.make(t)
			end := e.Table.Load().Find(c.pkt, 0)
			if end == nil {
				t.Fatal("no entry")
			}
			inner, r := end.decapsulate(end.Wire(), c.pkt)
			if c.as != drop.None {
				r = c.as
			}
			was, got := bytes.Clone(c.pkt), []verdict(nil)
			for v := verdictNone; v != verdictDeliver; {
				next := end.decide(v, end.Wire(), inner, r)
				if next <= v { // no verdict follows
					break
				}
				v = next
				got = append(got, v)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("verdicts %v, want %v (%v)", got, c.want, r)
			}
			if !bytes.Equal(was, c.pkt) {
				t.Error("the packet has changed")
			}
		})
	}
}

// outerFragment makes a packet the first fragment of a larger one.
func outerFragment(pkt []byte) []byte {
	binary.BigEndian.PutUint16(pkt[6:], header.MF)
	header.IPv4(pkt).SetChecksum()
	return pkt
}

// What is done with a packet of each verdict: what a capture shows, what is counted, what is
// sent, and what reaches the interface. There is no device, so that what is for the interface
// is dropped at the end as interface_down.
func TestHandle(t *testing.T) {
	const ours, theirs = "fc00::1", "fc00::2"
	udp := within("10.0.0.2", "10.0.0.1", header.UDP, make([]byte, 20)...)
	good, martian := tunnelled("198.51.100.1", "10.0.0.2", 30), tunnelled("198.51.100.1", "127.0.0.1", 30)
	keepalive := greToUs(within("192.0.2.1", "198.51.100.1", header.GRE, 0, 0, 0, 0))
	agent := func(n byte) []byte { return toUs("fd00::2", "fd00::1", header.UDP, 0, 0, 0, n) }
	request := toUs(theirs, ours, header.ICMPv6, icmp.EchoRequest6, 0, 0, 0, 0, 0, 0, 0)
	for _, c := range []struct {
		name  string
		lab   verdictLab
		ready bool // the probes recognize what they are asked about
		pkts  [][]byte
		want  string // what the capture shows of what arrived
		sent  int
		taken int // packets that are counted as received
	}{
		{"deliver", verdictLab{}, false, [][]byte{good}, "0 in inner 50 (dropped: interface_down); 0 in outer 110 (dropped: interface_down)", 0, 0},
		{"ours, answer to a probe", verdictLab{}, true, [][]byte{request}, "0 in inner 48 (for the daemon itself); 0 in outer 68 (for the daemon itself)", 0, 1},
		{"ours, for the interface", verdictLab{}, false, [][]byte{request}, "0 in inner 48 (dropped: interface_down); 0 in outer 68 (dropped: interface_down)", 0, 0},
		{"ours, spoof", verdictLab{hub: true}, false, [][]byte{toUs("fc00::9", ours, header.NoNextHeader)}, "0 in inner 40 (dropped: spoof); 0 in outer 60 (dropped: spoof)", 0, 0},
		{"probe", verdictLab{between: true}, true, [][]byte{good}, "0 in inner 50 (an answer to a probe from the daemon); 0 in outer 110 (an answer to a probe from the daemon)", 0, 1},
		{"control", verdictLab{agent: true}, false, [][]byte{agent(1), agent(2), agent(3)},
			"0 in inner 44 (neighbour discovery of the daemon itself); 0 in outer 64 (neighbour discovery of the daemon itself); " +
				"1 in inner 44 (dropped: spoof); 1 in outer 64 (dropped: spoof); 2 in inner 44 (dropped: interface_down); 2 in outer 64 (dropped: interface_down)", 0, 1},
		{"fragments", verdictLab{}, false,
			[][]byte{toUs(theirs, ours, header.FragmentHdr, append(fragmentHeader(0, 1), udp[:24]...)...), toUs(theirs, ours, header.FragmentHdr, append(fragmentHeader(24, 0), udp[24:]...)...)},
			"0 in outer 92 (a fragment: waiting for the others); " +
				"1 in inner 40 (dropped: interface_down); 1 in outer 84 (dropped: interface_down)", 0, 0},
		{"fragments of what is dropped", verdictLab{hub: true}, false,
			[][]byte{toUs(theirs, ours, header.FragmentHdr, append(fragmentHeader(0, 0), within("11.0.0.2", "10.0.0.1", header.UDP)...)...)},
			"0 in inner 20 (dropped: spoof); 0 in outer 88 (dropped: spoof)", 0, 0},
		{"problem", verdictLab{}, false, [][]byte{toUs(theirs, ours, header.DestOptions, append(toldOption, udp...)...)},
			"0 in inner 88 (answered by the daemon itself); 0 in outer 108 (answered by the daemon itself); 2 in inner 88 (dropped: bad_extension); 2 in outer 108 (dropped: bad_extension)", 1, 0},
		{"problem, not told", verdictLab{}, false, [][]byte{toUs(theirs, ours, header.DestOptions, append(silentOption, udp...)...)},
			"0 in inner 88 (dropped: bad_extension); 0 in outer 108 (dropped: bad_extension)", 0, 0},
		{"keepalive", verdictLab{gre: true}, false, [][]byte{keepalive}, "0 in inner 24 (a keepalive: the daemon returns the packet inside); 0 in outer 48 (a keepalive: the daemon returns the packet inside)", 1, 1},
		{"drop", verdictLab{}, false, [][]byte{martian}, "0 in outer 110 (dropped: martian)", 0, 0},
		{"drop, a probe that came back", verdictLab{}, true, [][]byte{martian}, "0 in outer 110 (an answer to a probe from the daemon)", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, _, p, to := c.lab.make(t)
			sender := new(recorder)
			to.Senders = []transport.Sender{sender}
			useWire(p, to)
			if c.ready {
				p.Probes = new(ready)
			}
			in := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{})
			shown := capturedBy(t, &e.Captures, func() { in.carry(put(in, c.pkts...)) })
			shown = slices.DeleteFunc(shown, func(s string) bool { return strings.Contains(s, " out ") })
			if got := strings.Join(shown, "; "); got != c.want {
				t.Errorf("shown:\n%s\nwant:\n%s", got, c.want)
			}
			if len(sender.sent) != c.sent {
				t.Errorf("%d packets sent, want %d: %x", len(sender.sent), c.sent, sender.sent)
			}
			if got := int(p.In.Packets.Load()) + int(p.Tunnel.In.Packets.Load()); got != c.taken {
				t.Errorf("%d packets counted, want %d", got, c.taken)
			}
		})
	}
}

// A control message of the framing is for the agent only: it is no inner packet, and without
// an agent that wants it, it is dropped.
func TestHandleMessage(t *testing.T) {
	for last, want := range []string{
		"0 in outer 110 (dropped: unknown_protocol)",
		"0 in inner 1 (neighbour discovery of the daemon itself); 0 in outer 110 (neighbour discovery of the daemon itself)",
		"0 in inner 1 (dropped: spoof); 0 in outer 110 (dropped: spoof)",
		"0 in outer 110 (dropped: unknown_protocol)",
	} {
		e, _, _, _ := verdictLab{agent: true}.make(t)
		in := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{})
		put(in, tunnelled("198.51.100.1", "10.0.0.2", 30))
		pkt := in.bufs[0][:in.meta[0].Size]
		end := e.Table.Load().Find(pkt, 0)
		shown := capturedBy(t, &e.Captures, func() {
			in.seen, in.pkt = e.Captures.Taps(), pkt
			in.handle(end, end.Wire(), pkt, []byte{byte(last)}, drop.UnknownProtocol)
		})
		if got := strings.Join(shown, "; "); got != want {
			t.Errorf("message %d: %s, want %s", last, got, want)
		}
	}
}
