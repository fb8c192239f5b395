package heartbeat

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sixfour/encap/drop"
	wire "sixfour/encap/heartbeat"
	"sixfour/transport/access"
)

const (
	inner  = "2001:db8:2ff:2::2"
	secret = "91915d757a09bfc94d5028832d85cc0d"
)

var (
	begun = time.Unix(1796033000, 0)
	home  = netip.MustParseAddrPort("192.0.2.45:50110") // the client
	moved = netip.MustParseAddrPort("203.0.113.7:4711")
)

// bench is a Server without a port, whose clock is set by hand.
type bench struct {
	*Server
	authority *authority
	now       time.Time
	mu        sync.Mutex
	sent      []netip.Addr
	beats     []string
}

func newBench(t *testing.T, change func(*Config)) *bench {
	b := &bench{authority: newAuthority(), now: begun}
	b.authority.add("alice", secret, inner)
	c := Config{Authority: b.authority, Local: netip.MustParseAddrPort("198.51.100.2:3740"), Now: func() time.Time { return b.now },
		Send: func(outer netip.Addr, packet []byte) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.sent = append(b.sent, outer)
			return nil
		},
		Beat: func(account string, m wire.Message, from netip.AddrPort) {
			b.beats = append(b.beats, fmt.Sprint(account, " ", m.Command, " ", from))
		}}
	if change != nil {
		change(&c)
	}
	b.Server = newServer(c)
	t.Cleanup(func() { b.Close() })
	return b
}

// beat passes a message with a time, relative to begun, and in the form "sender".
func (b *bench) beat(from netip.AddrPort, seconds int64) { b.message(from, wire.Tunnel, seconds) }

func (b *bench) message(from netip.AddrPort, command wire.Command, seconds int64) {
	b.handle(from, wire.Append(nil, wire.Message{Command: command, Inner: netip.MustParseAddr(inner), Epoch: begun.Unix() + seconds}, secret, wire.MD5))
}

// refused checks the reasons of all refusals so far.
func (b *bench) refused(t *testing.T, want ...access.Reason) {
	t.Helper()
	b.authority.mu.Lock()
	defer b.authority.mu.Unlock()
	if fmt.Sprint(b.authority.refused) != fmt.Sprint(want) {
		t.Errorf("refused for %v, want %v", b.authority.refused, want)
	}
	b.authority.refused = nil
}

// attached waits until the client is attached and entered.
func (b *bench) attached(t *testing.T) *client {
	t.Helper()
	c := next(t, b.authority.attached, "the client is not attached")
	for range 10000 {
		b.Server.mu.Lock()
		done := !b.tunnels[netip.MustParseAddr(inner)].attaching
		b.Server.mu.Unlock()
		if done {
			return c
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the client is attached for ever")
	return nil
}

// packet returns an IPv6 packet without payload.
func packet(from string) []byte {
	p := make([]byte, 40)
	p[0] = 0x60
	copy(p[8:], netip.MustParseAddr(from).AsSlice())
	return p
}

// A beat attaches the client, another one from elsewhere moves it, and packets follow.
func TestAttachAndMove(t *testing.T) {
	b := newBench(t, nil)
	if r := b.Receive(home.Addr(), packet(inner)); r != drop.ForeignSource {
		t.Errorf("before the first beat a packet is dropped for %v", r)
	}
	b.beat(home, 0)
	c := b.attached(t)
	want := access.Attachment{Protocol: "heartbeat", From: netip.AddrPortFrom(home.Addr(), 0), At: netip.MustParseAddrPort("198.51.100.2:0")}
	got := c.attachment
	link := got.Link
	if got.Link = nil; got != want {
		t.Errorf("attached as %+v, want %+v", got, want)
	}
	if r := b.Receive(home.Addr(), packet(inner)); r != drop.None {
		t.Errorf("a packet is dropped for %v", r)
	}
	b.beat(netip.AddrPortFrom(home.Addr(), 999), 0) // AICCU: the same time, another port
	if at := next(t, c.heard, "the second beat"); at != want.From {
		t.Errorf("heard from %v", at)
	}
	_ = link.Send(packet(inner))
	b.now = b.now.Add(time.Minute)
	b.beat(moved, 60)
	if at := next(t, c.heard, "the beat from elsewhere"); at != netip.AddrPortFrom(moved.Addr(), 0) {
		t.Errorf("heard from %v", at)
	}
	_ = link.Send(packet(inner))
	if r := b.Receive(home.Addr(), packet(inner)); r != drop.ForeignSource {
		t.Errorf("a packet from the old address is dropped for %v", r)
	}
	if r := b.Receive(netip.AddrFrom16(moved.Addr().As16()), packet(inner)); r != drop.None {
		t.Errorf("a packet from the new address is dropped for %v", r)
	}
	if fmt.Sprint(b.sent) != fmt.Sprint([]netip.Addr{home.Addr(), moved.Addr()}) || c.packets != 2 {
		t.Errorf("sent to %v, %d packets received", b.sent, c.packets)
	}
	if len(b.beats) != 3 || b.beats[2] != "alice HEARTBEAT TUNNEL "+moved.String() {
		t.Errorf("beats: %q", b.beats)
	}
	b.refused(t)
}

// Copies and late messages move nothing.
func TestReplay(t *testing.T) {
	b := newBench(t, nil)
	b.beat(home, 10)
	c := b.attached(t)
	b.beat(moved, 10) // a copy from another address
	b.beat(moved, 9)
	b.beat(home, 9)
	b.refused(t, access.Replay, access.Replay, access.Replay)
	none(t, c.heard, "heard")
	// The record outlives the client.
	b.message(home, wire.Disable, 11)
	next(t, c.left, "the client leaves")
	b.beat(moved, 10)
	b.expire(b.now.Add(2 * time.Minute))
	b.beat(moved, 10)
	b.refused(t, access.Replay, access.Replay)
	// It goes when its time is outside the window.
	b.expire(b.now.Add(2*time.Minute + 12*time.Second))
	if len(b.tunnels) != 0 {
		t.Error("the tunnel is not forgotten")
	}
}

// The clocks may differ by the window, and no more: nor do 1970 and 2106 overflow.
func TestClock(t *testing.T) {
	b := newBench(t, nil)
	for _, s := range []int64{121, -121, 300, -begun.Unix(), math.MaxUint32 - begun.Unix(), math.MaxInt64 - begun.Unix()} {
		b.beat(home, s)
		b.refused(t, access.BadClock)
	}
	if b.authority.named[access.BadClock] != "alice" {
		t.Error("the account is not named")
	}
	for _, s := range []int64{-120, 0, 120} {
		b.beat(home, s)
		b.refused(t)
	}
	b.attached(t)
}

// When our clock is set back, what was accepted before does not lock the client out.
func TestClockSetBack(t *testing.T) {
	b := newBench(t, nil)
	b.now = begun.Add(time.Hour)
	b.beat(home, 3600)
	c := b.attached(t)
	b.now = begun
	b.beat(home, 0)
	b.refused(t)
	next(t, c.heard, "the beat after the clock was set back")
}

func TestRefusals(t *testing.T) {
	m := wire.Message{Inner: netip.MustParseAddr(inner), Epoch: begun.Unix()}
	stranger, elsewhere := m, m
	stranger.Inner = netip.MustParseAddr("2001:db8:2ff:3::2")
	elsewhere.Outer = moved.Addr()
	for _, c := range []struct {
		name    string
		message []byte
		want    access.Reason
		account string
	}{
		{"not the protocol", []byte("GET / HTTP/1.1\r\n\r\n"), access.BadMessage, ""},
		{"too long", append(wire.Append(nil, m, secret, wire.MD5), make([]byte, 256)...), access.BadMessage, ""},
		{"another tunnel", wire.Append(nil, stranger, secret, wire.MD5), access.UnknownAccount, ""},
		{"another secret", wire.Append(nil, m, secret+"x", wire.MD5), access.WrongSecret, "alice"},
		{"SHA-256", wire.Append(nil, m, secret, wire.SHA256), access.WrongSecret, "alice"},
		{"HMAC", wire.Append(nil, m, secret, wire.HMAC), access.WrongSecret, "alice"},
		{"another outer address", wire.Append(nil, elsewhere, secret, wire.MD5), access.WrongAddress, "alice"},
	} {
		b := newBench(t, nil)
		b.handle(home, c.message)
		if b.authority.named[c.want] != c.account {
			t.Errorf("%s: account %q", c.name, b.authority.named[c.want])
		}
		b.refused(t, c.want)
	}
	b := newBench(t, nil)
	b.authority.limited = true
	b.beat(home, 0)
	b.refused(t, access.TooMany)

	b = newBench(t, nil)
	b.authority.add("nobody", "", inner) // has no secret: anybody could move its tunnel
	b.handle(home, wire.Append(nil, m, "", wire.MD5))
	b.refused(t, access.WrongSecret)

	b = newBench(t, func(c *Config) { c.Digest = wire.HMAC })
	b.handle(home, wire.Append(nil, m, secret, wire.HMAC))
	b.attached(t)
	b.refused(t)

	b = newBench(t, nil)
	m.Outer = home.Addr()
	b.handle(home, wire.Append(nil, m, secret, wire.MD5))
	b.attached(t)
	b.refused(t)
}

// A client without a lease is refused, and tries again with its next beat.
func TestNoLease(t *testing.T) {
	for _, failure := range []error{access.Refuse(access.NoPrefix, "no prefix is left"), errors.New("disk full")} {
		b := newBench(t, nil)
		b.authority.failure = failure
		b.beat(home, 0)
		want := access.NoPrefix
		if _, ok := failure.(*access.Refusal); !ok {
			want = access.Unavailable
		}
		if r := next(t, b.authority.refusals, "a refusal"); r != want {
			t.Errorf("refused for %v, want %v", r, want)
		}
		b.authority.mu.Lock()
		b.authority.failure = nil
		b.authority.mu.Unlock()
		b.beat(home, 1)
		b.attached(t)
	}
}

// Silence ends a client, and its next beat brings it back.
func TestSilence(t *testing.T) {
	b := newBench(t, nil)
	b.beat(home, 0)
	c := b.attached(t)
	b.expire(b.now.Add(5 * time.Minute))
	none(t, c.left, "left too early")
	b.expire(b.now.Add(5*time.Minute + time.Second))
	if why := next(t, c.left, "the client leaves"); !strings.Contains(why, "no heartbeat for 5m") {
		t.Errorf("left because %q", why)
	}
	if r := b.Receive(home.Addr(), packet(inner)); r != drop.ForeignSource {
		t.Errorf("a packet of a silent client is dropped for %v", r)
	}
	b.now = b.now.Add(10 * time.Minute)
	b.beat(moved, 600)
	if b.attached(t) == c {
		t.Error("the same client")
	}
}

// The Authority ends a client, which has come back by another protocol.
func TestEnd(t *testing.T) {
	b := newBench(t, nil)
	b.beat(home, 0)
	c := b.attached(t)
	link := c.attachment.Link
	link.End(access.Refuse(access.Elsewhere, "elsewhere"))
	if r := b.Receive(home.Addr(), packet(inner)); r != drop.ForeignSource {
		t.Errorf("a packet is dropped for %v", r)
	}
	if link.Send(packet(inner)) == nil || len(b.sent) != 0 {
		t.Error("packets are sent to a client that was ended")
	}
	b.beat(home, 60)
	again := b.attached(t)
	link.End(access.Refuse(access.Elsewhere, "elsewhere")) // of the former one
	if r := b.Receive(home.Addr(), packet(inner)); r != drop.None {
		t.Errorf("the new client's packet is dropped for %v", r)
	}
	b.Close()
	next(t, again.left, "the client leaves when the broker ends")
	none(t, c.left, "the client that was ended has left")
	b.beat(home, 61)
	none(t, b.authority.attached, "attached after the end")
}

// While the lease is written, the client may move, and may go.
func TestSlowLease(t *testing.T) {
	b := newBench(t, nil)
	b.authority.hold = make(chan struct{})
	b.beat(home, 0)
	b.beat(moved, 1)
	b.authority.hold <- struct{}{}
	c := b.attached(t)
	if at := next(t, c.heard, "the move"); at.Addr() != moved.Addr() {
		t.Errorf("heard from %v", at)
	}
	if r := b.Receive(moved.Addr(), packet(inner)); r != drop.None {
		t.Errorf("a packet is dropped for %v", r)
	}

	b = newBench(t, nil)
	b.authority.hold = make(chan struct{})
	b.beat(home, 0)
	b.message(home, wire.Disable, 1)
	b.authority.hold <- struct{}{}
	next(t, next(t, b.authority.attached, "attached").left, "the client leaves")

	b = newBench(t, nil)
	b.authority.hold = make(chan struct{}) // for ever: Close does not wait for it
	b.beat(home, 0)
	b.Close()
}

// A host's message is reported, and moves no tunnel.
func TestHost(t *testing.T) {
	b := newBench(t, nil)
	b.message(home, wire.Host, 0)
	b.refused(t)
	none(t, b.authority.attached, "attached")
	if len(b.beats) != 1 || b.beats[0] != "alice HEARTBEAT HOST "+home.String() {
		t.Errorf("beats: %q", b.beats)
	}
	b.message(home, wire.Disable, 1) // of a client that is not attached
	b.refused(t)
}

// Two clients behind one NAT are told apart by their inner addresses.
func TestOneNAT(t *testing.T) {
	b := newBench(t, nil)
	other := netip.MustParseAddr("2001:db8:2ff:9::2")
	b.authority.add("bob", "bob's secret", other.String())
	b.beat(home, 0)
	alice := b.attached(t)
	b.handle(home, wire.Append(nil, wire.Message{Inner: other, Epoch: begun.Unix()}, "bob's secret", wire.MD5))
	bob := next(t, b.authority.attached, "bob")
	for len(b.routes.at(home.Addr()).links) < 2 {
		time.Sleep(time.Millisecond)
	}
	for from, want := range map[string]drop.Reason{inner: drop.None, other.String(): drop.None, "2001:db8:2ff:9:5::1": drop.None, "2001:db8::1": drop.Spoof} {
		if r := b.Receive(home.Addr(), packet(from)); r != want {
			t.Errorf("a packet of %s: %v, want %v", from, r, want)
		}
	}
	if r := b.Receive(home.Addr(), packet(inner)[:39]); r != drop.Truncated {
		t.Errorf("a short packet: %v", r)
	}
	if alice.packets != 1 || bob.packets != 2 {
		t.Errorf("%d and %d packets", alice.packets, bob.packets)
	}
	b.message(home, wire.Disable, 1)
	next(t, alice.left, "alice leaves")
	if r := b.Receive(home.Addr(), packet(other.String())); r != drop.None {
		t.Errorf("bob's packet is dropped for %v", r)
	}
}

// A packet costs no memory.
func TestReceiveNoAllocs(t *testing.T) {
	b := newBench(t, nil)
	b.beat(home, 0)
	c := b.attached(t)
	p, outer := packet(inner), home.Addr()
	b.config.Send = func(netip.Addr, []byte) error { return nil }
	if n := testing.AllocsPerRun(100, func() { b.Receive(outer, p); _ = c.attachment.Link.Send(p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A Server at a port answers nothing, whatever comes.
func TestPort(t *testing.T) {
	a := newAuthority()
	a.add("alice", secret, inner)
	s, err := NewServer(Config{Authority: a, Local: netip.MustParseAddrPort("127.0.0.1:0"), Send: func(netip.Addr, []byte) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn, err := net.Dial("udp4", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m := wire.Message{Inner: netip.MustParseAddr(inner), Epoch: time.Now().Unix()}
	for _, p := range [][]byte{{}, []byte("HEARTBEAT"), make([]byte, 3000), wire.Append(nil, m, "guess", wire.MD5), wire.Append(nil, m, secret, wire.MD5)} {
		if _, err := conn.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	c := next(t, a.attached, "the client is not attached")
	if c.attachment.From != netip.MustParseAddrPort("127.0.0.1:0") {
		t.Errorf("attached from %v", c.attachment.From)
	}
	for _, want := range []access.Reason{access.BadMessage, access.BadMessage, access.BadMessage, access.WrongSecret} {
		if got := next(t, a.refusals, "a refusal"); got != want {
			t.Errorf("refused for %v, want %v", got, want)
		}
	}
	s.Close()
	next(t, c.left, "the client leaves")
	// Everything that was sent is handled: nothing came back.
	_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, err := conn.Read(make([]byte, 100)); err == nil {
		t.Errorf("an answer of %d bytes", n)
	}

	for _, local := range []string{"0.0.0.0:3740", "[::1]:3740", "[::]:3740"} {
		if s, err := NewServer(Config{Authority: a, Local: netip.MustParseAddrPort(local)}); err == nil {
			s.Close()
			t.Errorf("a server at %s", local)
		}
	}
}
