package jsontun

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/jsontun"
	"sixfour/internal/vectors"
	"sixfour/transport/access"
)

// say writes text and returns what one read returns, as the original client does.
func say(t testing.TB, c net.Conn, text string) string {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatalf("after %.100q: %v", text, err)
	}
	return string(b[:n])
}

// closes fails unless a connection ends soon, with nothing more in it.
func closes(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c); n != 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%d more bytes, %v", n, err)
	}
}

// A client of the original program: its hello and the answer are those of the vectors, and one
// write is one packet in both directions.
func TestOriginalClient(t *testing.T) {
	all := vectors.Read(t)
	b := newBroker()
	s := serve(t, b, nil)
	c := dial(t, s)
	if got := say(t, c, string(all["JSON-1"])); got != string(all["JSON-2"]) {
		t.Fatalf("the answer is %q, want %q", got, all["JSON-2"])
	}
	of := b.of("00:11:22:aa:bb:cc")
	if a := of.attachment; a.Protocol != "json" || a.Bits != 64 || a.From.String() != c.LocalAddr().String() || a.At != s.Local() {
		t.Errorf("attached with %+v", a)
	}
	if _, err := c.Write(all["JSON-3"]); err != nil {
		t.Fatal(err)
	}
	until(t, "two packets", func() bool { return len(of.packets()) == 2 })
	if got := of.packets(); !bytes.Equal(got[0], all["JSON-3"][:56]) || !bytes.Equal(got[1], all["JSON-3"][56:]) {
		t.Errorf("received %x", got)
	}
	b4096 := make([]byte, 4096)
	for i := range 100 {
		pkt := inner(100+i, i)
		if err := of.attachment.Link.Send(pkt); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b4096); err != nil || !bytes.Equal(b4096[:n], pkt) {
			t.Fatalf("one read returns %d bytes, %v, want %d", n, err, len(pkt))
		}
	}
	c.Close()
	until(t, "the end", func() bool { return of.why() != "" })
	if len(b.refusals()) != 0 {
		t.Errorf("refused: %v", b.refusals())
	}
	again := dial(t, s)
	if got := say(t, again, string(all["JSON-1"])); got != string(all["JSON-2"]) {
		t.Errorf("the second answer is %q", got)
	}
}

// What old clients may send: other names of members, white space, the hello in pieces or twice,
// packets at once.
func TestHello(t *testing.T) {
	all := vectors.Read(t)
	two := string(all["JSON-3"])
	for _, c := range []struct {
		name    string
		writes  []string
		packets int
	}{
		{"lower case", []string{`{"id":"open"}`}, 0},
		{"upper case", []string{`{"ID":"open"}`}, 0},
		{"white space", []string{"\n { \"Id\" :\t\"open\" }\r\n"}, 0},
		{"more members", []string{`{"Version":2,"x":[{"y":[]}],"Id":"open"}`}, 0},
		{"byte by byte", strings.Split(`{"Id":"open"}`, ""), 0},
		{"two packets behind it", []string{`{"Id":"open"}` + two}, 2},
		{"white space and a packet behind it", []string{"{\"Id\":\"open\"}\n", "\r", "\n" + two[:56]}, 1},
		{"packets in pieces", []string{`{"Id":"open"}` + two[:1], two[1:39], two[39:41], two[41:100], two[100:]}, 2},
		{"hello twice", []string{`{"Id":"open"}{"Id":"open"}` + two[:56]}, 1},
		{"hello twice in pieces", []string{`{"Id":"open"}{"I`, `d":"open"}`, two[:56]}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBroker()
			conn := dial(t, serve(t, b, nil))
			for _, w := range c.writes {
				if _, err := io.WriteString(conn, w); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
			want := `{"Prefix":"2001:db8:77:5::/64"}`
			got := make([]byte, len(want))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
				t.Fatalf("%q, %v", got, err)
			}
			of := b.of("open")
			until(t, "packets", func() bool { return len(of.packets()) == c.packets })
			for i, p := range of.packets() {
				if string(p) != two[i*56:i*56+56] {
					t.Errorf("packet %d is %x", i, p)
				}
			}
			if of.why() != "" || len(b.refusals()) != 0 {
				t.Errorf("it has ended: %q, %v", of.why(), b.refusals())
			}
		})
	}
}

// The safe form: the server asks an id with a secret for a proof.
func TestProof(t *testing.T) {
	b := newBroker()
	b.bits = 56
	s := serve(t, b, nil)
	nonce := func(c net.Conn) string {
		t.Helper()
		m, n, err := jsontun.Parse([]byte(say(t, c, `{"Id":"laptop"}`)))
		if n == 0 || err != nil || m.Nonce == "" || m.Prefix != "" || m.Error != "" {
			t.Fatalf("%+v, %v", m, err)
		}
		return m.Nonce
	}
	c := dial(t, s)
	proof := jsontun.Message{ID: "laptop", Auth: jsontun.Proof([]byte("open sesame"), "laptop", nonce(c))}.Append(nil)
	if got, want := say(t, c, string(proof)), `{"Prefix":"2001:db8:77:500::/56"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if len(b.refusals()) != 0 {
		t.Errorf("refused: %v", b.refusals())
	}
	for _, bad := range []struct {
		name, text string
		want       access.Reason
	}{
		{"the proof of another nonce", string(proof), access.WrongSecret},
		{"no proof", `{"Id":"laptop"}`, access.WrongSecret},
		{"no Id, no proof", `{"Auth":""}`, access.WrongSecret},
		{"another Id", `{"Id":"open","Auth":"00"}`, access.BadMessage},
		{"a packet", string(inner(56, 0)), access.BadMessage},
	} {
		b := newBroker()
		s := serve(t, b, nil)
		c := dial(t, s)
		nonce(c)
		if got := say(t, c, bad.text); !strings.HasPrefix(got, `{"Error":"`) {
			t.Errorf("%s: the answer is %s", bad.name, got)
		}
		closes(t, c)
		if got := b.refusals(); !slices.Equal(got, []access.Reason{bad.want}) || b.accounts[0] != "laptop" || b.of("laptop") != nil {
			t.Errorf("%s: refused: %v %v", bad.name, got, b.accounts)
		}
	}
	// A client of the original program takes the nonce for the answer, and goes.
	lonely := newBroker()
	c = dial(t, serve(t, lonely, nil))
	nonce(c)
	c.Close()
	until(t, "the refusal", func() bool { return slices.Equal(lonely.refusals(), []access.Reason{access.WrongSecret}) })
}

// Each refusal has words, and ends the connection.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		reason           access.Reason
		change           func(*broker)
	}{
		{"unknown", `{"Id":"nobody"}`, `{"Error":"there is no account with this name"}`, access.UnknownAccount, nil},
		{"the pool is empty", `{"Id":"open"}`, string(vectors.Read(t)["JSON-7"]), access.NoPrefix, func(b *broker) { b.left = 0 }},
		{"too often", `{"Id":"open"}`, `{"Error":"too many attempts`, access.TooMany, func(b *broker) { b.deny = true }},
		{"no Id", `{"Name":"open"}`, `{"Error":"the message has no Id"}`, access.BadMessage, nil},
		{"Id of other bytes", "{\"Id\":\"\xff\xfe\"}", `{"Error":"the message is not valid UTF-8"}`, access.BadMessage, nil},
		{"Id with a control character", `{"Id":"a\u0000b"}`, `{"Error":"the Id has control characters`, access.BadMessage, nil},
		{"long Id", `{"Id":"` + strings.Repeat("a", 256) + `"}`, `{"Error":"the Id has 256 bytes`, access.BadMessage, nil},
		{"number", `{"Id":7}`, `{"Error":"Id is a JSON number`, access.BadMessage, nil},
		{"a packet", string(inner(56, 0)), `{"Error":"the message does not begin`, access.BadMessage, nil},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", `{"Error":"the message does not begin`, access.BadMessage, nil},
		{"TLS", "\x16\x03\x01\x02\x00", `{"Error":"this server has no TLS`, access.Unsupported, nil},
		{"deep", strings.Repeat(`{"Id":`, 1000), `{"Error":"the message has more than 8 levels"}`, access.BadMessage, nil},
		{"1 MB", `{"Id":"` + strings.Repeat("a", 1<<20) + `"}`, `{"Error":"the message has more than 4096 bytes"}`, access.BadMessage, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBroker()
			if c.change != nil {
				c.change(b)
			}
			s := serve(t, b, nil)
			conn := dial(t, s)
			if got := say(t, conn, c.text); !strings.HasPrefix(got, c.want) {
				t.Errorf("the answer is %q, want %q", got, c.want)
			}
			closes(t, conn)
			conn.Close()
			until(t, "the end", func() bool { return s.Connections() == 0 })
			if got := b.refusals(); !slices.Equal(got, []access.Reason{c.reason}) {
				t.Errorf("refused: %v", got)
			}
		})
	}
}

// A stream that does not consist of IPv6 packets ends the connection, and says why.
func TestOutOfStep(t *testing.T) {
	for _, c := range []struct{ name, b, want string }{
		{"IPv4", "\x45\x00", "0x45"},
		{"too long", "\x60\x00\x00\x00\xff\xff" + strings.Repeat("a", 34), "65575 bytes"},
		{"another message", `{"Id":"other"}`, "another message"},
		{"a message that does not end", `{"Id":"` + strings.Repeat("a", 5000), "4096 bytes"},
		{"behind a packet", string(inner(41, 0)) + "x", "0x78"},
	} {
		b := newBroker()
		conn := dial(t, serve(t, b, nil))
		say(t, conn, `{"Id":"open"}`)
		of := b.of("open")
		if _, err := io.WriteString(conn, c.b); err != nil {
			t.Fatal(err)
		}
		closes(t, conn)
		until(t, "the end", func() bool { return of.why() != "" })
		if !strings.Contains(of.why(), c.want) {
			t.Errorf("%s: %q", c.name, of.why())
		}
	}
}

// When an account comes back by another connection, the Authority ends the former one.
func TestElsewhere(t *testing.T) {
	b := newBroker()
	s := serve(t, b, nil)
	first := dial(t, s)
	say(t, first, `{"Id":"open"}`)
	of := b.of("open")
	second := dial(t, s)
	say(t, second, `{"Id":"open"}`)
	closes(t, first)
	until(t, "the end", func() bool { return s.Connections() == 1 })
	if of.why() != "" || of.after != 0 || len(b.refusals()) != 0 {
		t.Errorf("left: %q, %d calls after the end, refused: %v", of.why(), of.after, b.refusals())
	}
	if err := of.attachment.Link.Send(inner(56, 0)); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("Send to the first one: %v", err)
	}
	if err := b.of("open").attachment.Link.Send(inner(56, 1)); err != nil {
		t.Error(err)
	}
	// It may end a client while it attaches it.
	b.mu.Lock()
	b.ended = access.Refuse(access.Stopping, "the daemon ends")
	b.mu.Unlock()
	third := dial(t, s)
	if _, err := io.WriteString(third, `{"Id":"open"}`); err != nil {
		t.Fatal(err)
	}
	closes(t, third)
	until(t, "the end of all", func() bool { return s.Connections() == 0 })
}

// Packets that would end the agreement about where packets begin are refused.
func TestSendRefuses(t *testing.T) {
	b := newBroker()
	say(t, dial(t, serve(t, b, nil)), `{"Id":"open"}`)
	link := b.of("open").attachment.Link
	for _, p := range [][]byte{nil, {0x60}, make([]byte, 60), append(inner(56, 0), 0), inner(56, 0)[:55], inner(jsontun.MaxPacket+1, 0)} {
		if err := link.Send(p); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%d bytes: %v", len(p), err)
		}
	}
}

// A connection without packets is reported as there.
func TestHeard(t *testing.T) {
	b := newBroker()
	say(t, dial(t, serve(t, b, func(_ *ServerConfig, s *serverTimes) { s.heard = 2 })), `{"Id":"open"}`)
	of := b.of("open")
	until(t, "Heard", func() bool { of.mu.Lock(); defer of.mu.Unlock(); return of.heard >= 3 })
}

// TLS on the same port.
func TestTLS(t *testing.T) {
	config, trust := secured(t)
	for _, required := range []bool{false, true} {
		b := newBroker()
		s := serve(t, b, func(c *ServerConfig, _ *serverTimes) { c.TLS, c.Required = config, required })
		plain := dial(t, s)
		got := say(t, plain, `{"Id":"open"}`)
		if refused := strings.HasPrefix(got, `{"Error":"this server requires TLS`); refused != required {
			t.Errorf("TLS required: %v; the answer without TLS is %s", required, got)
		}
		if required {
			closes(t, plain)
			if got := b.refusals(); !slices.Equal(got, []access.Reason{access.Unencrypted}) {
				t.Errorf("refused: %v", got)
			}
		}
		c := tls.Client(dial(t, s), trust)
		m, _, err := jsontun.Parse([]byte(say(t, c, `{"Id":"laptop"}`)))
		if err != nil || m.Nonce == "" {
			t.Fatalf("%+v, %v", m, err)
		}
		proof := jsontun.Message{ID: "laptop", Auth: jsontun.Proof([]byte("open sesame"), "laptop", m.Nonce)}.Append(nil)
		first := inner(9000, 1)
		if got := say(t, c, string(proof)+"\n"+string(first[:100])); !strings.HasPrefix(got, `{"Prefix":"2001:db8:77:`) {
			t.Fatal(got)
		}
		if _, err := c.Write(append(first[100:], inner(41, 0)...)); err != nil {
			t.Fatal(err)
		}
		of := b.of("laptop")
		until(t, "packets", func() bool { return len(of.packets()) == 2 })
		if got := of.packets(); !bytes.Equal(got[0], first) || len(got[1]) != 41 {
			t.Errorf("packets of %d and %d bytes", len(got[0]), len(got[1]))
		}
		for i := range 10 {
			if err := of.attachment.Link.Send(inner(100, i)); err != nil {
				t.Fatal(err)
			}
		}
		packet := make([]byte, 100)
		for i := range 10 {
			if _, err := io.ReadFull(c, packet); err != nil || number(packet) != i {
				t.Fatalf("packet %d: %x, %v", i, packet, err)
			}
		}
		bad := tls.Client(dial(t, s), trust)
		if got := say(t, bad, `{"Id":"nobody"}`); !strings.HasPrefix(got, `{"Error":"there is no account`) {
			t.Error(got)
		}
		c.Close()
		until(t, "the end", func() bool { return of.why() != "" })
	}
}

// A server closes connections in all states.
func TestClose(t *testing.T) {
	config, trust := secured(t)
	b := newBroker()
	s := serve(t, b, func(c *ServerConfig, _ *serverTimes) { c.TLS = config })
	dial(t, s)
	say(t, dial(t, s), `{"Id":"laptop"}`)
	say(t, dial(t, s), `{"Id":"open1"}`)
	say(t, tls.Client(dial(t, s), trust), `{"Id":"open2"}`)
	half := dial(t, s)
	if _, err := half.Write([]byte{0x16, 3, 1}); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.hold = make(chan struct{})
	b.mu.Unlock()
	if _, err := io.WriteString(dial(t, s), `{"Id":"open3"}`); err != nil {
		t.Fatal(err)
	}
	until(t, "all connections", func() bool { return s.Connections() == 6 })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// FuzzStream cuts a client's stream anywhere: the packets are the same, and none is longer than
// allowed.
func FuzzStream(f *testing.F) {
	f.Add([]byte(`{"Id":"open"} `+string(inner(60, 1))+string(inner(41, 2))), 20)
	f.Add(append(inner(60, 1), 0x45), 59)
	f.Add([]byte(`{"Id":"open`), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		run := func(parts ...[]byte) (of *attached, left []byte, failed bool) {
			of, d := new(attached), &dialogue{id: "open"}
			for _, part := range parts {
				rest, err := receive(append(left, part...), &d, of)
				if err != nil {
					return of, nil, true
				}
				left = slices.Clone(rest)
			}
			return of, left, false
		}
		if cut < 0 || cut > len(b) {
			return
		}
		whole, left, failed := run(b)
		parts, otherLeft, otherFailed := run(b[:cut], b[cut:])
		if failed != otherFailed || !slices.EqualFunc(whole.received, parts.received, bytes.Equal) || !bytes.Equal(left, otherLeft) {
			t.Fatalf("%x, %x, %v in one piece; %x, %x, %v in two", whole.received, left, failed, parts.received, otherLeft, otherFailed)
		}
		if len(left) >= jsontun.MaxPacket {
			t.Fatalf("%d bytes are left", len(left))
		}
	})
}
