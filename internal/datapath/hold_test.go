package datapath

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/transport"
)

// moody is a resolver that knows the neighbour in some calls, as the list says.
type moody struct {
	resolve.Resolver
	knows []bool
	log   *[]string
}

func (m *moody) To([]byte) (resolve.Endpoint, drop.Reason) {
	known := m.knows[0]
	m.knows = m.knows[1:]
	if !known {
		return resolve.Endpoint{}, drop.Unresolved
	}
	return resolve.Endpoint4(0xc6336401), drop.None
}

func (m *moody) Hold(pkt []byte) (held, known bool) {
	if _, r := m.To(pkt); r == drop.None {
		return false, true
	}
	*m.log = append(*m.log, fmt.Sprintf("hold %d", pkt[7]))
	return true, false
}

func (*moody) Wants([]byte) bool { return false }

func (*moody) Receive(header.Outer, []byte) (bool, drop.Reason) { return false, drop.None }

// logging is a sender that logs what it sends.
type logging struct {
	transport.Sender
	log *[]string
}

func (s *logging) Send(pkts []transport.Packet) (int, error) {
	for i := range pkts {
		*s.log = append(*s.log, fmt.Sprintf("send %d", pkts[i].Head[header.IPv4Len+7]))
	}
	return len(pkts), nil
}

// A packet that waits for its neighbour is queued behind the packets read before it. If the
// neighbour has been resolved meanwhile, the packet does not wait.
func TestHeldKeepOrder(t *testing.T) {
	var log []string
	r := &moody{log: &log, knows: []bool{true, true, false, false, true, false, true, true, true}}
	_, tn, p, to := labOf(t, 1500, encap.DefaultOptions, encap.Layer{Kind: encap.SixInFour, Local: netip.MustParseAddr("192.0.2.1"), Resolver: r})
	tn.SetAgent(r)
	to.Senders = []transport.Sender{&logging{log: &log}}
	useWire(p, to)
	o := NewOutbound(tn, nil, 0)
	o.workspace = workspaces.Get().(*workspace)
	for _, pkt := range sixes(1, 2, 3, 4, 5, 6) {
		o.add(append(make([]byte, encap.Headroom), pkt...))
	}
	o.send()
	// 1 and 2 are resolved, 3 is not, 4 is, 5 is resolved at the second attempt.
	want := "[send 1 send 2 hold 3 send 4 send 5 send 6]"
	if got := fmt.Sprint(log); got != want || p.Out.Packets.Load() != 5 {
		t.Errorf("%s, %d carried, want %s", got, p.Out.Packets.Load(), want)
	}
}

// A packet whose neighbour has become known meanwhile is sent in fragments if it is larger
// than the path's MTU, like any other packet.
func TestResolvedMeanwhileButLarge(t *testing.T) {
	var log []string
	r := &moody{log: &log, knows: []bool{false, true, true}}
	_, tn, p, to := labOf(t, 1000, encap.DefaultOptions, encap.Layer{Kind: encap.SixInFour, Local: netip.MustParseAddr("192.0.2.1"), Resolver: r})
	tn.SetAgent(r)
	to.Senders = []transport.Sender{&logging{log: &log}}
	useWire(p, to)
	o := NewOutbound(tn, nil, 0)
	o.workspace = workspaces.Get().(*workspace)
	o.add(append(make([]byte, encap.Headroom), datagram("2001:db8::1", "2001:db8::2", 1280, 1280)...))
	o.send()
	if drops := p.Out.Traffic().Drops; len(drops) != 0 || len(log) != 2 || p.Out.Packets.Load() != 1 {
		t.Errorf("drops %v, sent %v, %d carried", drops, log, p.Out.Packets.Load())
	}
}

// dual is a moody that also gets IPv4 packets.
type dual struct{ *moody }

func (dual) CarriesIPv4() {}

// An IPv4 packet that is too large waits for its neighbour in fragments. If the neighbour becomes
// known meanwhile, a fragment does not wait.
func TestHeldInFragments(t *testing.T) {
	for _, c := range []struct {
		knows           []bool // for whole, and by the fragments: of the size, to encapsulate, to hold, and again
		held            int
		packets, counts int
	}{
		{[]bool{false, false, false, false, false}, 2, 0, 0},
		{[]bool{false, false, false, false, true, true}, 1, 1, 1},
		{[]bool{true, true, true}, 0, 2, 1},
	} {
		var log []string
		r := dual{&moody{log: &log, knows: c.knows}}
		_, tn, p, to := labOf(t, 1500, encap.DefaultOptions, encap.Layer{Kind: encap.InLISP, Local: netip.MustParseAddr("192.0.2.1"), Resolver: r})
		tn.SetAgent(r)
		to.Senders = []transport.Sender{&logging{log: &log}}
		useWire(p, to)
		o := NewOutbound(tn, nil, 0)
		o.workspace = workspaces.Get().(*workspace)
		pkt := make([]byte, 1500)
		copy(pkt, []byte{0x45, 0, 1500 >> 8, 1500 & 0xff, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1})
		header.IPv4(pkt).SetChecksum()
		o.add(append(make([]byte, encap.Headroom), pkt...))
		o.send()
		held := 0
		for _, l := range log {
			if strings.HasPrefix(l, "hold") {
				held++
			}
		}
		if drops := p.Out.Traffic().Drops; len(drops) != 0 || held != c.held || len(log)-held != c.packets || int(p.Out.Packets.Load()) != c.counts || len(r.knows) != 0 {
			t.Errorf("knows %v: drops %v, %v, %d carried, %d questions less", c.knows, drops, log, p.Out.Packets.Load(), len(r.knows))
		}
	}
}
