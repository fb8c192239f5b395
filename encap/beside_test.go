package encap_test

import (
	"bytes"
	"net/netip"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
	"sixfour/internal/vectors"
)

// toForm sends everything to one endpoint, and remembers where a packet has come from.
type toForm struct {
	to   resolve.Endpoint
	from *resolve.Endpoint
}

func (r toForm) To([]byte) (resolve.Endpoint, drop.Reason) { return r.to, drop.None }
func (r toForm) From(from, _ resolve.Endpoint, _ []byte) drop.Reason {
	*r.from = from
	return drop.None
}

// A mechanism with a second protocol sends and receives packets of both: those of form 1 have
// nothing before the inner packet, as vector 6A44-4.
func TestBeside(t *testing.T) {
	want := vectors.Read(t)["6A44-4"]
	inner := want[header.IPv4Len:]
	r := toForm{from: new(resolve.Endpoint)}
	stack := func(to string, form uint8) *encap.Stack {
		r.to = resolve.EndpointOf(netip.MustParseAddrPort(to))
		r.to.Form = form
		s, err := encap.New([]encap.Layer{{Kind: encap.InSixA44, Local: netip.MustParseAddr("192.168.1.10"), Resolver: r}}, 1500, encap.DefaultOptions, source.New(nil, nil, false), encap.NewRecord())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	b := append(make([]byte, encap.Headroom), inner...)
	plain := stack("192.168.1.11:0", 1)
	got, why := plain.Encapsulate(b, encap.Headroom)
	if why != drop.None || !bytes.Equal(got, want) {
		t.Errorf("%x, %v\nwant %x", got, why, want)
	}
	got, why = stack("192.88.99.2:1027", 0).Encapsulate(b, encap.Headroom)
	if why != drop.None || len(got) != header.IPv4Len+header.UDPLen+len(inner) || header.IPv4(got).Protocol() != header.UDP {
		t.Errorf("form 0: %x, %v", got, why)
	}
	if got, why = stack("192.168.1.11:0", 2).Encapsulate(b, encap.Headroom); why != drop.NoRoute {
		t.Errorf("form 2: %x, %v", got, why)
	}
	back := append([]byte(nil), want...)
	copy(back[12:16], want[16:20])
	copy(back[16:20], want[12:16])
	header.IPv4(back).SetChecksum()
	pkt, why := plain.Decapsulate(back)
	if why != drop.None || !bytes.Equal(pkt, inner) || r.from.Form != 1 || r.from.Addr() != netip.MustParseAddr("192.168.1.11") {
		t.Errorf("%x, %v, from %v, form %d", pkt, why, r.from.Addr(), r.from.Form)
	}
	back[6] |= 0x20 // a fragment
	header.IPv4(back).SetChecksum()
	if _, why := plain.Decapsulate(back); why == drop.None {
		t.Error("a fragment is accepted")
	}
	if n := testing.AllocsPerRun(100, func() { plain.Encapsulate(b, encap.Headroom) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for _, other := range []encap.Kind{encap.InTeredo, encap.InSixBed4} {
		r.to.Form = 1
		s, err := encap.New([]encap.Layer{{Kind: other, Local: netip.MustParseAddr("192.168.1.10"), Resolver: r}}, 1500, encap.DefaultOptions, source.New(nil, nil, false), encap.NewRecord())
		if err != nil {
			t.Fatal(err)
		}
		if _, why := s.Encapsulate(b, encap.Headroom); why != drop.NoRoute {
			t.Errorf("%v: form 1: %v", other, why)
		}
		if _, why := s.Decapsulate(want); why == drop.None {
			t.Errorf("%v: protocol 41 is accepted", other)
		}
	}
}

// What a relay sends to a client is vector 6A44-6b.
func TestRelay6a44(t *testing.T) {
	want := vectors.Read(t)["6A44-6b"]
	inner := want[header.IPv4Len+header.UDPLen:]
	r := toForm{from: new(resolve.Endpoint), to: resolve.EndpointOf(netip.MustParseAddrPort("203.0.113.9:40200"))}
	s, err := encap.New([]encap.Layer{{Kind: encap.InSixA44, Local: netip.MustParseAddr("192.88.99.2"), Resolver: r}}, 1500, encap.DefaultOptions, source.New(nil, nil, false), encap.NewRecord())
	if err != nil {
		t.Fatal(err)
	}
	got, why := s.Encapsulate(append(make([]byte, encap.Headroom), inner...), encap.Headroom)
	if why != drop.None || !bytes.Equal(got, want) {
		t.Errorf("%v\n%x\nwant\n%x", why, got, want)
	}
}

// An ICMP error about a packet of form 1 is recognized, with as much as it quotes, and one about
// a packet that we would send in the other form, or elsewhere, is not.
func TestUnquoteBeside(t *testing.T) {
	direct := vectors.Read(t)["6A44-4"]
	r := toForm{from: new(resolve.Endpoint), to: resolve.Endpoint4(0xc0a8010b)}
	stack := func(form uint8, port uint16) *encap.Stack {
		r.to.Form, r.to.Port = form, port
		s, err := encap.New([]encap.Layer{{Kind: encap.InSixA44, Local: netip.MustParseAddr("192.168.1.10"), Resolver: r}}, 1500, encap.DefaultOptions, nil, encap.NewRecord())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := stack(1, 0)
	for n := header.IPv4Len + 8; n <= len(direct); n++ {
		q, ok := s.Unquote(direct[:n])
		if want := n >= header.IPv4Len+header.IPv6Len; !ok || q.Size != len(direct) || q.To != netip.MustParseAddr("192.168.1.11") || (q.Inner != nil) != want ||
			want && !bytes.Equal(q.Inner, direct[header.IPv4Len:n]) {
			t.Errorf("%d bytes: %v %+v", n, ok, q)
		}
	}
	pkt, why := stack(0, 1027).Encapsulate(append(make([]byte, encap.Headroom), direct[header.IPv4Len:]...), encap.Headroom)
	if why != drop.None {
		t.Fatal(why)
	}
	if _, ok := stack(0, 1027).Unquote(pkt); !ok {
		t.Error("an error about a packet in UDP is ignored")
	}
	for name, c := range map[string]struct {
		s     *encap.Stack
		quote []byte
	}{
		"a direct packet that goes to the relay":   {stack(0, 1027), direct},
		"a packet to the relay that goes directly": {stack(1, 0), pkt},
	} {
		if q, ok := c.s.Unquote(c.quote); ok {
			t.Errorf("%s: %+v", name, q)
		}
	}
	for name, edit := range map[string]func(b []byte){
		"source":         func(b []byte) { b[15]++ },
		"destination":    func(b []byte) { b[19]++ },
		"identification": func(b []byte) { b[5]++ },
		"protocol":       func(b []byte) { b[9] = 4 },
		"inner length":   func(b []byte) { b[25]++ },
	} {
		b := bytes.Clone(direct)
		edit(b)
		if q, ok := s.Unquote(b); ok {
			t.Errorf("a wrong %s is believed: %+v", name, q)
		}
	}
}

// Bubbles have no UDP checksum, as vector 6A44-1; messages of other mechanisms have one.
func TestDatagramWithoutChecksum(t *testing.T) {
	want := vectors.Read(t)["6A44-1"]
	payload := want[header.IPv4Len+header.UDPLen:]
	r := toForm{from: new(resolve.Endpoint)}
	for kind, unsummed := range map[encap.Kind]bool{encap.InSixA44: true, encap.InTeredo: false, encap.InSixBed4: false} {
		s, err := encap.New([]encap.Layer{{Kind: kind, Local: netip.MustParseAddr("192.168.1.10"), Resolver: r}}, 1500, encap.DefaultOptions, nil, encap.NewRecord())
		if err != nil {
			t.Fatal(err)
		}
		got, why := s.Datagram(append(make([]byte, encap.Headroom), payload...), encap.Headroom, netip.AddrPort{}, netip.MustParseAddrPort("192.88.99.2:1027"))
		if why != drop.None || bytes.Equal(got, want) != unsummed || (got[26]|got[27] == 0) != unsummed {
			t.Errorf("%v: %x, %v", kind, got, why)
		}
	}
}

// An ICMP error about a datagram without payload, which nobody has to receive, is ignored.
func TestUnquoteKeepalive(t *testing.T) {
	r := toForm{from: new(resolve.Endpoint), to: resolve.EndpointOf(netip.MustParseAddrPort("203.0.113.20:25790"))}
	s, err := encap.New([]encap.Layer{{Kind: encap.InSixBed4, Local: netip.MustParseAddr("10.0.0.5"), Resolver: r}}, 1500, encap.DefaultOptions, nil, encap.NewRecord())
	if err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int]bool{0: false, 48: true} {
		pkt, why := s.Datagram(make([]byte, encap.Headroom+size), encap.Headroom, netip.AddrPort{}, r.to.AddrPort())
		if why != drop.None {
			t.Fatal(why)
		}
		if q, ok := s.Unquote(pkt[:header.IPv4Len+header.UDPLen]); ok != want {
			t.Errorf("payload of %d bytes: %v %+v", size, ok, q)
		}
	}
}
