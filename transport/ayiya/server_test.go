package ayiya

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/ayiya"
	"sixfour/internal/vectors"
	"sixfour/transport"
	"sixfour/transport/access"
)

// expect waits for an inner packet of a client.
func (a *attached) expect(t *testing.T, want []byte) {
	t.Helper()
	select {
	case got := <-a.packets:
		if !bytes.Equal(got, want) {
			t.Errorf("the broker got\n%x, want\n%x", got, want)
		}
	case <-time.After(patience):
		t.Fatal("no packet has come")
	}
}

func (a *attached) nothing(t *testing.T, what string) {
	t.Helper()
	select {
	case got := <-a.packets:
		t.Errorf("%s: the broker got %x", what, got)
	default:
	}
}

// The packets of the vectors, at the time in them, through sockets: what the server takes from
// a client, and what it sends, byte by byte.
func TestServerVectors(t *testing.T) {
	v := vectors.Read(t)
	e := access.Endpoint{Broker: netip.MustParseAddr("2001:db8:2ff:1::1"), Client: netip.MustParseAddr("2001:db8:2ff:1::2")}
	for _, c := range []struct {
		name  string
		epoch int64
		hash  ayiya.Hash
		sends []string // by the client
		gets  []string // by the broker: what is inside these
		reply string   // what the server sends for what is inside, or as an answer
	}{
		{name: "AYIYA-3", epoch: 1700000002, hash: ayiya.SHA1, sends: []string{"AYIYA-1", "AYIYA-2"}, gets: []string{"AYIYA-2"}, reply: "AYIYA-3"},
		{name: "AYIYA-6b", epoch: 0x6b0d4978, hash: ayiya.SHA1, sends: []string{"AYIYA-5", "AYIYA-7", "AYIYA-6a"}, gets: []string{"AYIYA-6a"}, reply: "AYIYA-6b"},
		{name: "AYIYA-9", epoch: 1700000000, hash: ayiya.SHA1, sends: []string{"AYIYA-1", "AYIYA-8"}, reply: "AYIYA-9"},
		{name: "AYIYA-4", epoch: 1700000000, hash: ayiya.SHA256, sends: []string{"AYIYA-4"}},
		{name: "bad ones", epoch: 1700000001, hash: ayiya.SHA1, sends: []string{"AYIYA-1", "AYIYA-D1", "AYIYA-D2", "AYIYA-D4", "AYIYA-2"}, gets: []string{"AYIYA-2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBroker(0)
			b.accounts[e.Client] = access.Account{Name: "1", Secret: password, Endpoint: e}
			s := serve(t, ServerConfig{Authority: b, Shards: 1, Hashes: []ayiya.Hash{c.hash}, Now: func() time.Time { return time.Unix(c.epoch, 0) }})
			f := newForeign(t, s, 1)
			f.send(v[c.sends[0]][28:])
			eventually(t, "the attachment", func() bool {
				at := s.members.find((*identity)(e.Client.AsSlice()))
				return at != nil && at.attached() != nil
			})
			for _, name := range c.sends[1:] {
				f.send(v[name][28:])
			}
			client := b.client("1")
			for _, name := range c.gets {
				client.expect(t, v[name][28+44:])
			}
			if c.reply == "" {
				f.silent(c.name)
				return
			}
			if len(c.gets) > 0 {
				must(t, client.Link.Send(v[c.reply][28+44:]))
			}
			buf := make([]byte, 2000)
			must(t, f.conn.SetReadDeadline(time.Now().Add(patience)))
			n, err := f.conn.Read(buf)
			must(t, err)
			if !bytes.Equal(buf[:n], v[c.reply][28:]) {
				t.Errorf("the server sends\n%x, want\n%x", buf[:n], v[c.reply][28:])
			}
		})
	}
}

func TestServerOperations(t *testing.T) {
	b := newBroker(2)
	s := serve(t, ServerConfig{Authority: b})
	f := newForeign(t, s, 1)
	client := f.arrive(b, "1")
	pkt := inner(f.id, internet, "hello")

	f.send(f.packet(ayiya.Forward, ayiya.NextIPv6, pkt))
	client.expect(t, pkt)
	f.send(f.packet(ayiya.EchoForward, ayiya.NextIPv6, pkt))
	client.expect(t, pkt)
	if m := f.receive(); m.Op != ayiya.EchoResponse || m.Next != ayiya.NextNone || !bytes.Equal(m.Payload, pkt) {
		t.Errorf("echo and forward is answered with %+v", m)
	}
	for name, want := range map[string]string{
		"Version": version, "outer-endpoint": f.at().String(), "hostname": "", "contact": "", "lasterror": "", "nonsense": "",
	} {
		f.send(f.packet(ayiya.QueryRequest, ayiya.NextNone, ayiya.AppendQuery(nil, 42, name)))
		m := f.receive()
		if number, text, ok := m.Answer(); m.Op != ayiya.QueryResponse || number != 42 || text != want || ok != (want != "") {
			t.Errorf("query for %s: operation %d, %d, %q", name, m.Op, number, text)
		}
	}
	// Nothing to do, and nothing to say.
	f.send(f.packet(ayiya.EchoResponse, ayiya.NextNone, []byte("x")))
	f.send(f.packet(ayiya.MOTD, ayiya.NextNone, []byte("0\nx")))
	f.send(f.packet(ayiya.QueryResponse, ayiya.NextNone, []byte("1234")))
	for _, source := range []string{"fe80::1", "febf::1", "::"} {
		f.send(f.packet(ayiya.Forward, ayiya.NextIPv6, inner(netip.MustParseAddr(source), netip.MustParseAddr("ff02::2"), source)))
	}
	f.echo()
	f.silent("messages")
	client.nothing(t, "messages")
	if r := b.reasons(); len(r) > 0 {
		t.Errorf("refused: %v", r)
	}

	must(t, client.Link.Send(pkt))
	if m := f.receive(); m.Op != ayiya.Forward || m.Next != ayiya.NextIPv6 || !bytes.Equal(m.Payload, pkt) {
		t.Errorf("a packet to the client is %+v", m)
	}
	four := []byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}
	must(t, client.Link.Send(four))
	if m := f.receive(); m.Next != ayiya.NextIPv4 || !bytes.Equal(m.Payload, four) {
		t.Errorf("an IPv4 packet to the client is %+v", m)
	}
	if err := client.Link.Send([]byte{0}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("no packet: %v", err)
	}
	if err := client.Link.Send(make([]byte, 70000)); err == nil {
		t.Error("70000 bytes are sent")
	}

	f.send(f.packet(ayiya.QueryRequest, ayiya.NextNone, ayiya.AppendQuery(nil, 1, ayiya.QueryShutdown)))
	eventually(t, "the end after a shutdown", func() bool { return client.left.Load() != nil })
	f.receive()
	if err := client.Link.Send(pkt); err == nil {
		t.Error("a packet goes to a client that has left")
	}
	f.arrive(b, "1")
}

// Strangers get no answer, whatever they send.
func TestServerStrangers(t *testing.T) {
	b := newBroker(2)
	s := serve(t, ServerConfig{Authority: b})
	f := newForeign(t, s, 1)
	client := f.arrive(b, "1")
	other := newForeign(t, s, 1)
	for name, c := range map[string]struct {
		change func()
		want   access.Reason
	}{
		"a wrong password":  {func() { other.key = ayiya.NewKey(ayiya.SHA1, "wrong") }, access.WrongSecret},
		"another hash":      {func() { other.key = ayiya.NewKey(ayiya.SHA256, password) }, access.Unsupported},
		"no account":        {func() { other.id = netip.MustParseAddr("2001:db8::77") }, access.UnknownAccount},
		"a clock behind":    {func() { other.epoch = ayiya.Epoch(time.Now().Add(-3 * time.Minute)) }, access.BadClock},
		"a clock ahead":     {func() { other.epoch = ayiya.Epoch(time.Now().Add(3 * time.Minute)) }, access.BadClock},
		"a clock in 1970":   {func() { other.epoch = 1 }, access.BadClock},
		"a clock in 2106":   {func() { other.epoch = 1<<32 - 1 }, access.BadClock},
		"our own identity":  {func() { other.id = endpoint(1).Broker }, access.UnknownAccount},
		"an unset identity": {func() { other.id = netip.IPv6Unspecified() }, access.UnknownAccount},
	} {
		for _, op := range []ayiya.OpCode{ayiya.EchoRequest, ayiya.EchoForward, ayiya.QueryRequest, ayiya.Noop} {
			other.key, other.id, other.epoch = f.key, f.id, 0
			c.change()
			next, payload := byte(ayiya.NextNone), []byte("1234")
			switch op {
			case ayiya.EchoForward:
				next, payload = ayiya.NextIPv6, inner(f.id, internet, name)
			case ayiya.Noop:
				payload = nil
			}
			eventually(t, "the refusal of "+name, func() bool { // one at a time is looked at, and one a second reported
				other.send(other.packet(op, next, payload))
				time.Sleep(time.Millisecond)
				return slices.Contains(b.reasons(), c.want)
			})
		}
		other.silent(name)
		client.nothing(t, name)
	}
	if at := client.place.Load().from; at != f.at() {
		t.Errorf("the client has moved to %v", at)
	}
	f.echo()
}

// A client moves with each packet that is no copy of another one.
func TestServerRoaming(t *testing.T) {
	b := newBroker(2)
	s := serve(t, ServerConfig{Authority: b, Shards: 1})
	f := newForeign(t, s, 1)
	client := f.arrive(b, "1")
	pkt := inner(f.id, internet, "to the client")
	old := f.packet(ayiya.Noop, ayiya.NextNone, nil)
	f.send(old)
	for i := range 3 {
		moved := newForeign(t, s, 1)
		first := moved.packet(ayiya.Forward, ayiya.NextIPv6, inner(f.id, internet, fmt.Sprint(i)))
		moved.send(first)
		client.expect(t, first[44:])
		eventually(t, "the move", func() bool { return client.place.Load().from == moved.at() })
		if at := client.place.Load().at; at != s.Local() {
			t.Errorf("the client sends to %v", at)
		}
		must(t, client.Link.Send(pkt))
		if m := moved.receive(); !bytes.Equal(m.Payload, pkt) {
			t.Errorf("the client got %+v", m)
		}
		// Copies of packets, sent by others, change nothing.
		b.reasons()
		for _, again := range [][]byte{old, first} {
			newForeign(t, s, 1).send(again)
		}
		eventually(t, "the refusal of a copy", func() bool { return slices.Contains(b.reasons(), access.Replay) })
		moved.echo()
		if at := client.place.Load().from; at != moved.at() {
			t.Errorf("a copy has moved the client to %v", at)
		}
		client.nothing(t, "copies")
	}
	if b.client("1") != client {
		t.Error("the client was attached again")
	}
}

// A copy of a packet of a client that has left does not attach it.
func TestServerReplayAfterLeaving(t *testing.T) {
	b := newBroker(2)
	s := serve(t, ServerConfig{Authority: b})
	f := newForeign(t, s, 1)
	client := f.arrive(b, "1")
	recorded := f.packet(ayiya.Noop, ayiya.NextNone, nil)
	f.send(recorded)
	f.epoch = ayiya.Epoch(time.Now()) + 1
	latest := f.packet(ayiya.Noop, ayiya.NextNone, nil)
	f.send(latest)
	f.send(f.packet(ayiya.QueryRequest, ayiya.NextNone, ayiya.AppendQuery(nil, 1, ayiya.QueryShutdown)))
	eventually(t, "the end", func() bool { return client.left.Load() != nil })
	b.reasons()
	thief := newForeign(t, s, 1)
	for _, copied := range [][]byte{recorded, latest} {
		eventually(t, "the refusal of a copy", func() bool {
			thief.send(copied)
			time.Sleep(time.Millisecond)
			return slices.Contains(b.reasons(), access.Replay)
		})
	}
	time.Sleep(10 * time.Millisecond)
	if at := b.client("1"); at != nil && at.From == thief.at() {
		t.Error("a copy has attached the client")
	}
}

func TestServerSilence(t *testing.T) {
	b := newBroker(3)
	s := serve(t, ServerConfig{Authority: b, Silence: 300 * time.Millisecond, Window: time.Second})
	f, talks := newForeign(t, s, 1), newForeign(t, s, 2)
	client, other := f.arrive(b, "1"), talks.arrive(b, "2")
	eventually(t, "the end by silence", func() bool { talks.echo(); return client.left.Load() != nil })
	if why := *client.left.Load(); why != "nothing has come from the client for 300ms" {
		t.Errorf("the client has left because %s", why)
	}
	if why := other.left.Load(); why != nil {
		t.Errorf("the other client has left, too: %s", *why)
	}
	eventually(t, "forgetting the client", func() bool { talks.echo(); return s.members.find((*identity)(f.id.AsSlice())) == nil })
	f.arrive(b, "1")
	must(t, s.Close())
	for _, name := range []string{"1", "2"} {
		if b.client(name) != nil {
			t.Errorf("client %s is attached to a closed server", name)
		}
	}
	if err := s.Close(); err == nil {
		t.Error("the second Close has no error")
	}
}

// A broker that takes long to attach one client keeps no other from being served or attached.
func TestServerSlowBroker(t *testing.T) {
	b := newBroker(4)
	slow, release := make(chan struct{}), make(chan struct{})
	var asked atomic.Int32
	b.attach = func(a access.Account) error {
		switch {
		case a.Name == "2":
			if asked.Add(1) == 1 {
				close(slow)
			}
			<-release
		case a.Name == "3":
			return access.Refuse(access.NoPrefix, "the pool is used up")
		}
		return nil
	}
	s := serve(t, ServerConfig{Authority: b})
	waits := newForeign(t, s, 2)
	waits.send(waits.packet(ayiya.Noop, ayiya.NextNone, nil))
	<-slow
	for i := range 50 { // more of its packets ask for nothing more
		waits.send(waits.packet(ayiya.EchoRequest, ayiya.NextNone, fmt.Append(nil, i)))
	}
	f := newForeign(t, s, 1)
	f.arrive(b, "1")
	refused := newForeign(t, s, 3)
	refused.send(refused.packet(ayiya.Noop, ayiya.NextNone, nil))
	eventually(t, "a refusal", func() bool { return slices.Contains(b.reasons(), access.NoPrefix) })
	close(release)
	eventually(t, "the slow attachment", func() bool { return b.client("2") != nil })
	waits.echo()
	if n := asked.Load(); n != 1 {
		t.Errorf("the broker was asked %d times", n)
	}
}

// The broker ends clients: one whose secret has changed, and one that is disabled.
func TestServerEnds(t *testing.T) {
	b := newBroker(2)
	s := serve(t, ServerConfig{Authority: b, Notice: &ayiya.Notice{Time: time.Unix(1700000000, 0), Title: "Welcome"}})
	f := newForeign(t, s, 1)
	f.send(f.packet(ayiya.Noop, ayiya.NextNone, nil))
	if m := f.receive(); m.Op != ayiya.MOTD || string(m.Payload) != "1700000000\nWelcome\n\n" {
		t.Errorf("the client is welcomed with %d: %q", m.Op, m.Payload)
	}
	client := f.arrive(b, "1")

	b.mu.Lock()
	account := b.accounts[f.id]
	account.Secret = "changed"
	b.accounts[f.id] = account
	b.mu.Unlock()
	f.key = ayiya.NewKey(ayiya.MD5, "changed") // also another hash
	f.send(f.packet(ayiya.Noop, ayiya.NextNone, nil))
	eventually(t, "the attachment with another secret", func() bool { return b.client("1") != client })
	f.receive()
	f.echo()
	if err := client.Link.Send(inner(internet, f.id, "x")); err == nil {
		t.Error("the former link takes packets")
	}

	client = b.client("1")
	client.Link.End(access.Refuse(access.Disabled, "not any more"))
	m := f.receive()
	if _, name := m.Query(); m.Op != ayiya.QueryRequest || name != ayiya.QueryShutdown {
		t.Errorf("a disabled client gets %+v", m)
	}
	if client.left.Load() != nil {
		t.Error("the server calls a client that the broker has ended")
	}
}

func TestServerRates(t *testing.T) {
	b := newBroker(2)
	var asked atomic.Int32
	var no atomic.Bool
	b.allow = func(netip.Addr) bool { asked.Add(1); return !no.Load() }
	s := serve(t, ServerConfig{Authority: b, Shards: 1})
	f := newForeign(t, s, 1)
	client := f.arrive(b, "1")
	n := asked.Load()
	for range 10 {
		f.echo()
	}
	if got := asked.Load(); got != n {
		t.Errorf("packets of a client that is attached have cost %d attempts", got-n)
	}
	no.Store(true)
	other := newForeign(t, s, 1) // moves a client that is attached, which is no attempt
	other.send(other.packet(ayiya.EchoRequest, ayiya.NextNone, []byte("moves")))
	if m := other.receive(); string(m.Payload) != "moves" {
		t.Errorf("the client gets %q", m.Payload)
	}
	n = asked.Load()
	guesses := newForeign(t, s, 1)
	guesses.key = ayiya.NewKey(ayiya.SHA1, "guess")
	guesses.send(guesses.packet(ayiya.Noop, ayiya.NextNone, nil))
	eventually(t, "a refusal", func() bool { return slices.Contains(b.reasons(), access.TooMany) })
	if asked.Load() == n {
		t.Error("a wrong password is no attempt")
	}
	other.echo()
	if at := client.place.Load().from; at != other.at() {
		t.Errorf("the client is at %v", at)
	}
}

// Copies of heartbeats of one second, as old clients send them, and refusals of a busy client
// are no flood of reports.
func TestServerReports(t *testing.T) {
	b := newBroker(2)
	s := serve(t, ServerConfig{Authority: b, reports: time.Hour})
	f := newForeign(t, s, 1)
	f.arrive(b, "1")
	beat := f.packet(ayiya.Noop, ayiya.NextNone, nil)
	for range 3 {
		f.send(beat)
	}
	f.echo()
	if r := b.reasons(); len(r) > 0 {
		t.Errorf("heartbeats are refused: %v", r)
	}
	pkt := f.packet(ayiya.Forward, ayiya.NextIPv6, inner(f.id, internet, "again and again"))
	for range 10 {
		f.send(pkt)
	}
	f.echo()
	if r := b.reasons(); !slices.Equal(r, []access.Reason{access.Replay}) {
		t.Errorf("copies are refused: %v", r)
	}
}

func TestServerConfigErrors(t *testing.T) {
	for name, c := range map[string]ServerConfig{
		"UMAC":              {Hashes: []ayiya.Hash{3}},
		"a long window":     {Window: 2 * time.Hour},
		"a negative time":   {Silence: -1},
		"negative shards":   {Shards: -1},
		"no address":        {Shards: 1, Local: netip.AddrPortFrom(netip.Addr{}, 5)},
		"a foreign address": {Shards: 1, Local: netip.MustParseAddrPort("[ff02::1]:0")},
	} {
		if !c.Local.IsValid() && name != "no address" {
			c.Local = netip.MustParseAddrPort("127.0.0.1:0")
		}
		c.Authority = newBroker(0)
		if s, err := NewServer(c, transport.Options{}); err == nil {
			t.Errorf("%s is accepted", name)
			must(t, s.Close())
		}
	}
}
