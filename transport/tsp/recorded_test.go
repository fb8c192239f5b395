package tsp_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	wire "sixfour/encap/tsp"
	"sixfour/internal/vectors"
	"sixfour/transport"
	"sixfour/transport/access"
	"sixfour/transport/tsp"
)

// serve starts a server at the loopback address.
func serve(t testing.TB, a *authority, change func(c *tsp.ServerConfig)) *tsp.Server {
	t.Helper()
	c := tsp.ServerConfig{Authority: a, Local: netip.MustParseAddrPort("127.0.0.1:0")}
	if change != nil {
		change(&c)
	}
	s, err := tsp.NewServer(c, transport.Options{})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// old is a client that sends datagrams as a recorded one did.
type old struct {
	t    testing.TB
	conn *net.UDPConn
	seq  uint32
}

func dial(t testing.TB, to netip.AddrPort) *old {
	t.Helper()
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return &old{t, conn, wire.FirstSequence}
}

// send sends a datagram.
func (o *old) send(b []byte) {
	o.t.Helper()
	_, err := o.conn.Write(b)
	must(o.t, err)
}

// receive returns the next datagram.
func (o *old) receive() []byte {
	o.t.Helper()
	must(o.t, o.conn.SetReadDeadline(time.Now().Add(soon)))
	b := make([]byte, 65536)
	n, err := o.conn.Read(b)
	must(o.t, err)
	return b[:n]
}

// silent fails the test if anything comes.
func (o *old) silent() {
	o.t.Helper()
	must(o.t, o.conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	b := make([]byte, 65536)
	if n, err := o.conn.Read(b); err == nil {
		o.t.Fatalf("there is an answer: %q", b[:n])
	}
}

// ask sends a text with the next sequence number, and returns the text of its answer.
func (o *old) ask(text string) string {
	o.t.Helper()
	h := wire.Header{Sequence: o.seq, Timestamp: 77}
	o.seq++
	o.send(append(h.Append(nil), text...))
	b := o.receive()
	got, answer, ok := wire.Parse(b)
	if !ok || got != h {
		o.t.Fatalf("the answer to %q has another header: %x", text, b)
	}
	return string(answer)
}

// udp returns the datagram of a vector.
func udp(t testing.TB, name string) []byte {
	t.Helper()
	b := vectors.Read(t)[name]
	if len(b) < 28 {
		t.Fatalf("there is no vector %s", name)
	}
	return b[28:]
}

// The dialogue of gogoCLIENT with DIGEST-MD5, TSP-5 to TSP-16, byte by byte where the server's
// nonce does not change it. The server's own texts differ where it offers more.
func TestRecordedDigest(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	s := serve(t, a, func(c *tsp.ServerConfig) { c.Realm = "cdpatsps"; c.Open = true })
	o := dial(t, s.Local())

	o.send(udp(t, "TSP-5"))
	if got, want := o.receive(), udp(t, "TSP-6"); !bytes.Equal(got, want) {
		t.Errorf("CAPABILITY is %q, not %q", got, want)
	}
	o.send(udp(t, "TSP-7"))
	challenge := o.receive()
	if !bytes.Equal(challenge[:8], udp(t, "TSP-8")[:8]) {
		t.Errorf("the challenge has the header %x", challenge[:8])
	}
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(challenge[8:])))
	must(t, err)
	var nonce string
	if _, err := fmt.Sscanf(string(plain), `realm="cdpatsps",nonce=%q,qop=auth,algorithm=md5-sess,charset=utf-8`, &nonce); err != nil {
		t.Fatalf("the challenge is %q", plain)
	}
	c, err := wire.ParseChallenge(challenge[8:])
	must(t, err)
	d := c.Answer("alice", "wonder", "198.51.100.2", "1796033421")
	response := d.Append(append([]byte(nil), udp(t, "TSP-9")[:8]...))
	o.send(response)
	if got, want := o.receive(), wire.AppendProof(udp(t, "TSP-10")[:8:8], d.Proof("wonder")); !bytes.Equal(got, want) {
		t.Errorf("the proof is %q, not %q", got, want)
	}
	o.send(response) // again: the same answer, and the nonce is not used twice
	if got, want := o.receive(), wire.AppendProof(udp(t, "TSP-10")[:8:8], d.Proof("wonder")); !bytes.Equal(got, want) {
		t.Errorf("the second proof is %q, not %q", got, want)
	}
	o.send(udp(t, "TSP-11"))
	if got, want := o.receive(), udp(t, "TSP-12"); !bytes.Equal(got, want) {
		t.Errorf("the result is %q, not %q", got, want)
	}
	o.send(udp(t, "TSP-13"))
	info := o.receive()
	if !bytes.Equal(info[:8], udp(t, "TSP-14")[:8]) {
		t.Errorf("the tunnel has the header %x", info[:8])
	}
	want := strings.NewReplacer("\n", "\r\n", "  ", "\t").Replace(`200 Success
<tunnel action="info" type="v6udpv4" lifetime="1440">
  <server>
    <address type="ipv4">127.0.0.1</address>
    <address type="ipv6">2001:0db8:00ff:0001:0000:0000:0000:0001</address>
  </server>
  <client>
    <address type="ipv4">127.0.0.1</address>
    <address type="ipv6">2001:0db8:00ff:0001:0000:0000:0000:0002</address>
    <dns_server>
      <address type="ipv6">0000:0000:0000:0000:0000:0000:0000:0000</address>
    </dns_server>
    <keepalive interval="30">
      <address type="ipv6">2001:0db8:00ff:0001:0000:0000:0000:0001</address>
    </keepalive>
  </client>
</tunnel>
`)
	if got := string(info[8:]); got != fmt.Sprintf("Content-length: %d\r\n%s", len(want), want) {
		t.Errorf("the tunnel is\n%s\nnot\n%s", got, want)
	}
	o.send(udp(t, "TSP-15"))
	if got, want := o.receive(), udp(t, "TSP-16"); !bytes.Equal(got, want) {
		t.Errorf("the acknowledgement is %x, not %x", got, want)
	}
	client := a.next(t)
	carries(t, o, client)
}

// carries checks that packets pass in both directions.
func carries(t *testing.T, o *old, client *attached) {
	t.Helper()
	e := client.account.Endpoint
	up := packet(e.Client, netip.MustParseAddr("2001:db8::5"), 17, []byte("up"))
	o.send(up)
	select {
	case got := <-client.got:
		if !bytes.Equal(got, up) {
			t.Errorf("received %x, not %x", got, up)
		}
	case <-time.After(soon):
		t.Fatal("the packet was not received")
	}
	down := packet(netip.MustParseAddr("2001:db8::5"), e.Client, 17, []byte("down"))
	must(t, client.attachment.Link.Send(down))
	if got := o.receive(); !bytes.Equal(got, down) {
		t.Errorf("the client has received %x, not %x", got, down)
	}
	o.send(echo(128, e.Client, e.Broker))
	want := echo(129, e.Broker, e.Client)
	if got := o.receive(); !bytes.Equal(got[8:], want[8:]) {
		t.Errorf("the answer to an echo request is\n%x, not\n%x", got, want)
	}
}

// The dialogue of gogoCLIENT with PLAIN: TSP-17, TSP-18 and TSP-20.
func TestRecordedPlain(t *testing.T) {
	a := newAuthority()
	a.add("alice", "wonder")
	s := serve(t, a, nil)
	o := dial(t, s.Local())
	o.send(udp(t, "TSP-5"))
	o.receive()
	o.send(udp(t, "TSP-17"))
	if got, want := o.receive(), udp(t, "TSP-18"); !bytes.Equal(got, want) {
		t.Errorf("the answer to AUTHENTICATE PLAIN is %x, not %x", got, want)
	}
	o.seq = 0xf00000f2
	if got := o.ask("\x00alice\x00wonder\r\n"); got != "200 Success\r\n" {
		t.Errorf("the result is %q", got)
	}
	o.send(udp(t, "TSP-20")) // v6anyv4, and another address than the loopback one: a NAT
	if got := string(o.receive()[8:]); !strings.Contains(got, `type="v6udpv4"`) {
		t.Errorf("behind a NAT v6anyv4 is\n%s", got)
	}
	o.seq = 0xf00000f4
	if got := o.ask("Content-length: 35\r\n<tunnel action=\"accept\"></tunnel>\r\n"); got != "" {
		t.Errorf("the acknowledgement is %q", got)
	}
	carries(t, o, a.next(t))
}

// The vectors that were built from the RFC, with a sequence number of which the last byte has
// no nibble 0xf, and one that has only that.
func TestRFCVectors(t *testing.T) {
	a := newAuthority()
	a.add("anonymous-127.0.0.1-192.0.2.1", "")
	a.add("anonymous-127.0.0.1", "")
	s := serve(t, a, func(c *tsp.ServerConfig) {
		c.Open = true
		c.Raw = func(netip.Addr) access.Link { return nil }
	})
	o := dial(t, s.Local())
	o.send(udp(t, "TSP-1"))
	if got, want := o.receive(), udp(t, "TSP-2"); !bytes.Equal(got, want) {
		t.Errorf("CAPABILITY is %q, not %q", got, want)
	}
	o.seq = 0x000000f1
	if got := o.ask("AUTHENTICATE ANONYMOUS\r\b"); got != "200 Success\r\n" { // as a client in Java does
		t.Errorf("the result is %q", got)
	}
	o.send(udp(t, "TSP-3"))
	if got := string(o.receive()); !strings.Contains(got, `type="v6udpv4"`) {
		t.Errorf("the tunnel is %q", got)
	}
	client := a.next(t)
	o.send(udp(t, "TSP-4"))
	select {
	case got := <-client.got:
		if !bytes.Equal(got, udp(t, "TSP-4")) {
			t.Errorf("received %x", got)
		}
	case <-time.After(soon):
		t.Fatal("the packet was not received")
	}
}
