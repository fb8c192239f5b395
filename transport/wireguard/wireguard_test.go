package wireguard_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/wireguard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what must happen.
const soon = 30 * time.Second

// end is a port of a test.
type end struct {
	*wireguard.Port
	key    wireguard.Secret
	tx     transport.Sender
	events chan event  // calls of Connected
	got    chan []byte // received packets
}

// event is a call of Connected.
type event struct {
	id  any
	at  netip.AddrPort
	why error
}

// open opens a port with a new key at a local address.
func open(t testing.TB, local string) *end {
	t.Helper()
	return openWith(t, wireguard.Config{PrivateKey: wireguard.NewPrivateKey(), Local: netip.MustParseAddrPort(local)}, listen)
}

func listen(c wireguard.Config) (*wireguard.Port, error) {
	return wireguard.Listen(c, transport.Options{})
}

func openWith(t testing.TB, c wireguard.Config, listen func(wireguard.Config) (*wireguard.Port, error)) *end {
	t.Helper()
	e := &end{key: c.PrivateKey, events: make(chan event, 1000), got: make(chan []byte, 10000)}
	c.Connected = func(id any, at netip.AddrPort, why error) { e.events <- event{id, at, why} }
	var err error
	if e.Port, err = listen(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if e.tx, err = e.Sender(transport.Options{}); err != nil {
		t.Fatal(err)
	}
	go e.receive()
	return e
}

func (e *end) receive() {
	bufs, meta := make([][]byte, 16), make([]transport.Meta, 16)
	for i := range bufs {
		bufs[i] = make([]byte, transport.MaxPacket)
	}
	for {
		n, err := e.Receive(bufs, meta)
		if err != nil {
			close(e.got)
			return
		}
		for i := range n {
			e.got <- bytes.Clone(bufs[i][:meta[i].Size])
		}
	}
}

// peer returns a peer of another end.
func peer(id any, of *end, remote netip.AddrPort, s wireguard.Settings) transport.SessionPeer {
	s.PublicKey = of.PublicKey()
	return transport.SessionPeer{ID: id, Remote: remote, Settings: &s}
}

func prefixes(list ...string) (p []netip.Prefix) {
	for _, s := range list {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// event waits for the next call of Connected.
func (e *end) event(t testing.TB) event {
	t.Helper()
	select {
	case v := <-e.events:
		return v
	case <-time.After(soon):
		t.Fatal("no call of Connected")
		return event{}
	}
}

// connected waits until a peer is somewhere, and returns where.
func (e *end) connected(t testing.TB, id any) netip.AddrPort {
	t.Helper()
	v := e.event(t)
	if v.id != id || !v.at.IsValid() || v.why != nil {
		t.Fatalf("Connected%v, want %v", v, id)
	}
	return v.at
}

// inner returns a packet between inner addresses with a payload.
func inner(from, to string, payload []byte) []byte {
	o := header.Outer{
		From: netip.AddrPortFrom(netip.MustParseAddr(from), 1), At: netip.AddrPortFrom(netip.MustParseAddr(to), 2), TTL: 64,
	}
	b := make([]byte, header.HeadersLen(o.From.Addr())+len(payload))
	copy(b[header.HeadersLen(o.From.Addr()):], payload)
	header.PutHeaders(b, &o)
	return b
}

// outer returns the headers for a packet from a port.
func outer(from, to netip.AddrPort, size int, tos byte) []byte {
	b := make([]byte, header.HeadersLen(to.Addr())+size)
	header.PutHeaders(b, &header.Outer{From: from, At: to, TOS: tos, TTL: 33})
	return b[:header.HeadersLen(to.Addr())]
}

func (e *end) send(to netip.AddrPort, in []byte) error {
	_, err := e.tx.Send([]transport.Packet{{Head: outer(e.Local(), to, len(in), 0), Body: in}})
	return err
}

// next waits for the next packet, and returns its headers and the inner packet.
func (e *end) next(t testing.TB) (header.Outer, []byte) {
	t.Helper()
	select {
	case b := <-e.got:
		return split(t, b)
	case <-time.After(soon):
		t.Fatal("no packet")
		return header.Outer{}, nil
	}
}

// split checks the headers before an inner packet.
func split(t testing.TB, b []byte) (header.Outer, []byte) {
	t.Helper()
	if header.Version(b) == 4 {
		if _, why := header.ParseIPv4(b); why != 0 {
			t.Fatalf("% x: %v", b, why)
		}
	}
	o := header.OuterOf(b)
	n := header.HeadersLen(o.From.Addr())
	from, to := header.Ports(b[n-header.UDPLen:])
	if size := int(binary.BigEndian.Uint16(b[n-header.UDPLen+4:])); size != len(b)-n+header.UDPLen {
		t.Fatalf("UDP length %d in a packet of %d", size, len(b))
	}
	o.From, o.At = netip.AddrPortFrom(o.From.Addr(), from), netip.AddrPortFrom(o.At.Addr(), to)
	return o, b[n:]
}

// nothing checks that there has been no packet when a packet from another end arrives.
func (e *end) nothing(t testing.TB) {
	t.Helper()
	select {
	case b := <-e.got:
		t.Fatalf("received % x", b)
	default:
	}
}

// exchange sends packets between two connected ends in both directions.
func exchange(t testing.TB, a, b *end, toB, toA netip.AddrPort) {
	t.Helper()
	for i := range 3 {
		want := inner("2001:db8::a", "2001:db8::b", fmt.Appendf(nil, "there %d", i))
		must(t, a.send(toB, want))
		o, got := b.next(t)
		if !bytes.Equal(got, want) || o.From != toA || o.At.Port() != b.Local().Port() {
			t.Fatalf("received %v % x, want from %v % x", o, got, toA, want)
		}
		want = inner("2001:db8::b", "2001:db8::a", fmt.Appendf(nil, "back %d", i))
		must(t, b.send(toA, want))
		if o, got = a.next(t); !bytes.Equal(got, want) || o.From != toB {
			t.Fatalf("received %v % x, want from %v % x", o, got, toB, want)
		}
	}
}

// pair returns two ends, of which the first one connects to the other.
func pair(t testing.TB, localA, localB string) (a, b *end) {
	t.Helper()
	a, b = open(t, localA), open(t, localB)
	must(t, b.SetPeers([]transport.SessionPeer{peer("a", a, netip.AddrPort{}, wireguard.Settings{})}))
	must(t, a.SetPeers([]transport.SessionPeer{peer("b", b, b.Local(), wireguard.Settings{})}))
	if at := a.connected(t, "b"); at != b.Local() {
		t.Fatalf("b is at %v, want %v", at, b.Local())
	}
	if at := b.connected(t, "a"); at != a.Local() {
		t.Fatalf("a is at %v, want %v", at, a.Local())
	}
	return a, b
}

// Two ports exchange packets in both directions. Only one of them knows where the other is.
func TestTwoPorts(t *testing.T) {
	for _, c := range []struct{ name, a, b string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.2:0"},
		{"IPv6", "[::1]:0", "[::1]:0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t, c.a, c.b)
			exchange(t, a, b, b.Local(), a.Local())
			if lost, ok := a.Lost(); lost != 0 || !ok {
				t.Errorf("lost %d %v", lost, ok)
			}
		})
	}
}

// A port at an unspecified address has the addresses at which packets arrive.
func TestUnspecifiedLocal(t *testing.T) {
	a, b := open(t, "127.0.0.1:0"), open(t, "0.0.0.0:0")
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.7"), b.Local().Port())
	must(t, b.SetPeers([]transport.SessionPeer{peer("a", a, netip.AddrPort{}, wireguard.Settings{})}))
	must(t, a.SetPeers([]transport.SessionPeer{peer("b", b, at, wireguard.Settings{})}))
	a.connected(t, "b")
	b.connected(t, "a")
	exchange(t, a, b, at, a.Local())
	must(t, a.send(at, inner("2001:db8::a", "2001:db8::b", nil)))
	if o, _ := b.next(t); o.At != at {
		t.Errorf("arrived at %v, want %v", o.At, at)
	}
}

// The TOS of the headers is that of the datagrams, and so are TTL and hop limit.
func TestOuterFields(t *testing.T) {
	for _, local := range []string{"127.0.0.1:0", "[::1]:0"} {
		a, b := pair(t, local, local)
		in := inner("192.0.2.1", "192.0.2.2", []byte("x"))
		for _, tos := range []byte{0, 1, 2, 3, 0xb8} {
			_, err := a.tx.Send([]transport.Packet{{Head: outer(a.Local(), b.Local(), len(in), tos), Body: in}})
			must(t, err)
			if o, _ := b.next(t); o.TOS != tos || o.TTL != 33 {
				t.Errorf("%s: TOS %#x TTL %d, want %#x, 33", local, o.TOS, o.TTL, tos)
			}
		}
	}
}

// A packet may be in two pieces anywhere after its headers, or leave alone.
func TestPieces(t *testing.T) {
	a, b := pair(t, "127.0.0.1:0", "127.0.0.2:0")
	in := inner("192.0.2.1", "192.0.2.2", []byte("payload"))
	whole := append(outer(a.Local(), b.Local(), len(in), 0), in...)
	for at := header.IPv4Len + header.UDPLen; at <= len(whole); at++ {
		_, err := a.tx.Send([]transport.Packet{{Head: whole[:at], Body: whole[at:]}})
		must(t, err)
		if _, got := b.next(t); !bytes.Equal(got, in) {
			t.Fatalf("in two pieces at %d: % x", at, got)
		}
	}
	must(t, a.tx.SendOne(whole))
	if _, got := b.next(t); !bytes.Equal(got, in) {
		t.Fatalf("% x", got)
	}
}

// Errors of a sender.
func TestSendErrors(t *testing.T) {
	a, b := pair(t, "127.0.0.1:0", "127.0.0.2:0")
	in := inner("192.0.2.1", "192.0.2.2", []byte("payload"))
	head := func(change func(b []byte)) []byte {
		h := outer(a.Local(), b.Local(), len(in), 0)
		change(h)
		return h
	}
	large := make([]byte, transport.MaxPacket-80)
	copy(large, in)
	for _, c := range []struct {
		name string
		pkt  transport.Packet
		want error
	}{
		{"short", transport.Packet{Head: head(func([]byte) {})[:27], Body: in}, unix.EINVAL},
		{"fragment", transport.Packet{Head: head(func(b []byte) { b[6] = 0x20 }), Body: in}, unix.EINVAL},
		{"not UDP", transport.Packet{Head: head(func(b []byte) { b[9] = 41 }), Body: in}, unix.EINVAL},
		{"IPv6", transport.Packet{Head: outer(netip.MustParseAddrPort("[::1]:1"), netip.MustParseAddrPort("[::1]:2"), 0, 0), Body: in}, unix.EINVAL},
		{"another source port", transport.Packet{Head: head(func(b []byte) { b[20]++ }), Body: in}, unix.EINVAL},
		{"not a peer's port", transport.Packet{Head: head(func(b []byte) { b[22]++ }), Body: in}, unix.ENOTCONN},
		{"not a peer's address", transport.Packet{Head: head(func(b []byte) { b[19]++ }), Body: in}, unix.ENOTCONN},
		{"no inner packet", transport.Packet{Head: head(func([]byte) {})}, unix.EINVAL},
		{"part of an inner header", transport.Packet{Head: head(func([]byte) {}), Body: in[:19]}, unix.EINVAL},
		{"too large", transport.Packet{Head: head(func([]byte) {}), Body: large}, unix.EMSGSIZE},
	} {
		good := transport.Packet{Head: head(func([]byte) {}), Body: in}
		n, err := a.tx.Send([]transport.Packet{good, c.pkt, good})
		if n != 1 || !errors.Is(err, c.want) {
			t.Errorf("%s: %d, %v, want 1, %v", c.name, n, err, c.want)
		}
		if err := a.tx.SendOne(append(bytes.Clone(c.pkt.Head), c.pkt.Body...)); !errors.Is(err, c.want) {
			t.Errorf("%s: SendOne: %v, want %v", c.name, err, c.want)
		}
		if _, got := b.next(t); !bytes.Equal(got, in) {
			t.Errorf("%s: % x", c.name, got)
		}
	}
	for _, o := range []transport.Options{{Mark: 1}, {Device: 1}} {
		if _, err := a.Sender(o); err == nil {
			t.Errorf("a sender with %+v", o)
		}
	}
}

// The sizes of datagrams: Overhead and padding, which never makes them larger than SetPadding
// says.
func TestSizes(t *testing.T) {
	b, wire := open(t, "127.0.0.1:0"), make(chan int, 1000)
	r := newRelay(t, b.Local(), func(_ int, datagram []byte) [][]byte {
		if datagram[0] == 4 && len(datagram) > 32 {
			wire <- len(datagram)
		}
		return [][]byte{datagram}
	})
	a := open(t, "127.0.0.1:0")
	must(t, b.SetPeers([]transport.SessionPeer{peer("a", a, netip.AddrPort{}, wireguard.Settings{})}))
	must(t, a.SetPeers([]transport.SessionPeer{peer("b", b, r.front(), wireguard.Settings{})}))
	a.connected(t, "b")
	for _, c := range []struct{ padding, inner, want int }{
		{1200, 28, 32}, {1200, 32, 32}, {1200, 33, 48}, {1200, 1199, 1200}, {1200, 1200, 1200},
		{1200, 1201, 1201}, {1200, 1419, 1419}, {1420, 1419, 1420}, {1420, 1420, 1420}, {1440, 1425, 1440}, {0, 29, 29},
	} {
		if c.padding != 1200 { // the usual one
			a.SetPadding(c.padding)
		}
		in := inner("192.0.2.1", "192.0.2.2", make([]byte, c.inner-28))
		must(t, a.send(r.front(), in))
		if got := <-wire; got != c.want+wireguard.Overhead {
			t.Errorf("%d bytes, padding up to %d: a datagram of %d, want %d", c.inner, c.padding, got, c.want+wireguard.Overhead)
		}
		if _, got := b.next(t); !bytes.Equal(got, in) {
			t.Errorf("%d bytes: received %d", c.inner, len(got))
		}
	}
	if got := wireguard.MaxInner(1500, netip.IPv4Unspecified()); got != 1440 {
		t.Errorf("MaxInner over IPv4: %d", got)
	}
	if got := wireguard.MaxInner(1500, netip.IPv6Unspecified()); got != 1420 {
		t.Errorf("MaxInner over IPv6: %d", got)
	}
}

// relay passes datagrams between the front, to which one end sends, and a target, which sees
// one of its backs as the sender.
type relay struct {
	in    *net.UDPConn
	back  chan *net.UDPConn // the present one
	fresh func() *net.UDPConn
}

// move makes the target see another address.
func (r *relay) move(t testing.TB) {
	t.Helper()
	old := <-r.back
	r.back <- r.fresh()
	old.Close()
}

// newRelay starts a relay. Change returns what to send for each datagram; direction is 0 to
// the target.
func newRelay(t testing.TB, target netip.AddrPort, change func(direction int, b []byte) [][]byte) *relay {
	t.Helper()
	loop := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0"))
	in, err := net.ListenUDP("udp4", loop)
	must(t, err)
	r := &relay{in: in, back: make(chan *net.UDPConn, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); in.Close(); (<-r.back).Close() })
	client := make(chan netip.AddrPort, 1)
	client <- netip.AddrPort{}
	r.fresh = func() *net.UDPConn { return newBack(t, r, target, client, change) }
	r.back <- r.fresh()
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := in.ReadFromUDPAddrPort(b)
			if err != nil || ctx.Err() != nil {
				return
			}
			<-client
			client <- from
			back := <-r.back
			for _, d := range change(0, bytes.Clone(b[:n])) {
				_, _ = back.Write(d)
			}
			r.back <- back
		}
	}()
	return r
}

// newBack opens a socket whose datagrams from the target go to the client.
func newBack(t testing.TB, r *relay, target netip.AddrPort, client chan netip.AddrPort, change func(int, []byte) [][]byte) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(target))
	must(t, err)
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, err := c.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			to := <-client
			client <- to
			for _, d := range change(1, bytes.Clone(b[:n])) {
				_, _ = r.in.WriteToUDPAddrPort(d, to)
			}
		}
	}()
	return c
}

func (r *relay) front() netip.AddrPort {
	return netip.MustParseAddrPort(r.in.LocalAddr().String())
}
