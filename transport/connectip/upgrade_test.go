package connectip

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/netsock"
	"sixfour/transport/queue"
)

// A second implementation of the upgrade of RFC 9484 section 4.1, on net/http, with a codec
// of capsules of its own (RFC 9297 section 3.2). It always writes varints of 8 bytes, which
// are valid though not the shortest.

func putCapsule(w io.Writer, kind uint64, value []byte) error {
	b := binary.BigEndian.AppendUint64(nil, 3<<62|kind)
	b = binary.BigEndian.AppendUint64(b, 3<<62|uint64(len(value)))
	_, err := w.Write(append(b, value...))
	return err
}

func getVarint(r io.Reader) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return 0, err
	}
	n := []int{1, 2, 4, 8}[b[0]/64]
	if _, err := io.ReadFull(r, b[1:n]); err != nil {
		return 0, err
	}
	b[0] %= 64
	return binary.BigEndian.Uint64(b[:]) >> (64 - 8*n), nil
}

func getCapsule(r io.Reader) (kind uint64, value []byte, err error) {
	if kind, err = getVarint(r); err != nil {
		return 0, nil, err
	}
	n, err := getVarint(r)
	if err != nil {
		return 0, nil, err
	}
	value = make([]byte, n)
	_, err = io.ReadFull(r, value)
	return kind, value, err
}

// want reads capsules until one has a type, and checks its value.
func want(t *testing.T, r io.Reader, kind uint64, value []byte) {
	t.Helper()
	for {
		got, v, err := getCapsule(r)
		if err != nil {
			t.Fatal(err)
		}
		if got == kind {
			if !bytes.Equal(v, value) {
				t.Fatalf("the capsule of type %d is %x, want %x", kind, v, value)
			}
			return
		}
	}
}

// upgraded connects to a server, and returns the stream after the upgrade.
func upgraded(t *testing.T, a *authority, server *end, path, token string) (io.ReadWriteCloser, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: a.pool(), ServerName: name, MinVersion: tls.VersionTLS13},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", server.Local().String())
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"connect-ip"}, "Capsule-Protocol": {"?1"}, "Authorization": {"bearer " + token}}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		answer.Body.Close()
		return nil, fmt.Errorf("%s, WWW-Authenticate %q", answer.Status, answer.Header.Get("WWW-Authenticate"))
	}
	if answer.Header.Get("Upgrade") != "connect-ip" || answer.Header.Get("Capsule-Protocol") != "?1" {
		t.Errorf("the header fields of the answer are %v", answer.Header)
	}
	stream := answer.Body.(io.ReadWriteCloser)
	t.Cleanup(func() { stream.Close() })
	return stream, nil
}

// A client over HTTP/1.1 that is not ours gets an address and routes, and exchanges packets.
func TestForeignUpgradeClient(t *testing.T) {
	a := newAuthority(t)
	server := open(t, Config{Certificate: a.certificate(name, time.Now().Add(time.Hour))})
	settings := &Settings{Path: "/ip?target=*&ipproto=*", Secret: []byte(secret), Assign: prefixes("2001:db8:a::/64"), Routes: prefixes("10.0.0.0/8")}
	if err := server.SetPeers([]transport.SessionPeer{{ID: "client", Settings: settings}}); err != nil {
		t.Fatal(err)
	}
	for token, status := range map[string]string{"": `401 Unauthorized, WWW-Authenticate "Bearer"`, "0": `401 Unauthorized, WWW-Authenticate "Bearer"`} {
		if _, err := upgraded(t, a, server, "/ip?target=*&ipproto=*", token); err == nil || err.Error() != status {
			t.Errorf("token %q: %v", token, err)
		}
	}
	if _, err := upgraded(t, a, server, "/ip", secret); err == nil || err.Error() != `404 Not Found, WWW-Authenticate ""` {
		t.Errorf("another path: %v", err)
	}
	s, err := upgraded(t, a, server, "/ip?target=*&ipproto=*", secret)
	if err != nil {
		t.Fatal(err)
	}
	from := server.up("client")
	r := bufio.NewReader(s)
	assign := append([]byte{0, 6}, append(settings.Assign[0].Addr().AsSlice(), 64)...)
	want(t, r, 1, assign)
	want(t, r, 3, []byte{4, 10, 0, 0, 0, 10, 255, 255, 255, 0})
	if err := putCapsule(s, 2, append([]byte{9, 6}, append(make([]byte, 16), 64)...)); err != nil {
		t.Fatal(err)
	}
	assign[0] = 9
	want(t, r, 1, assign)
	for _, size := range []int{40, 1280, 1500, 60000} {
		pkt := inner(size, size)
		if err := putCapsule(s, 0x3fffffff, []byte("unknown")); err != nil {
			t.Fatal(err)
		}
		if err := putCapsule(s, 0, append([]byte{0}, pkt...)); err != nil {
			t.Fatal(err)
		}
		if got := wait(t, server.packets, "the client's packet"); !bytes.Equal(got[28:], pkt) {
			t.Errorf("the packet of %d bytes has changed", size)
		}
		if err := server.sender.SendOne(to(from, server.Local(), pkt)); err != nil {
			t.Fatal(err)
		}
		want(t, r, 0, append([]byte{0}, pkt...))
	}
	s.Close()
	t.Log(server.down("client"))
}

// Our client takes address and routes from a server over HTTP/1.1 that is not ours, and
// exchanges packets with it.
func TestForeignUpgradeServer(t *testing.T) {
	a := newAuthority(t)
	streams := make(chan *bufio.ReadWriter, 1)
	requests := make(chan *http.Request, 1)
	l, err := net.Listen("tcp4", loopback.String())
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, b, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { c.Close() })
		b.WriteString("HTTP/1.1 101 Go on\r\nconnection: upgrade\r\nupgrade: Connect-IP\r\n\r\n")
		putCapsule(b, 0x1234567, make([]byte, 5000)) // in the same segment, usually
		b.Flush()
		requests <- r
		streams <- b
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(tls.NewListener(l, &tls.Config{GetCertificate: a.certificate(name, time.Now().Add(time.Hour)), MinVersion: tls.VersionTLS13}))
	}()
	defer func() {
		s.Close()
		<-served
	}()
	at := netsock.AddrPort(l.Addr())
	client := open(t, Config{})
	settings := &Settings{Path: "/ip/", Secret: []byte(secret), ServerName: name, Host: "other.example:8443", Roots: a.pool(), Request: prefixes("::/64"), Routes: prefixes("2001:db8::/32")}
	if err := client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: at, Settings: settings}}); err != nil { // nothing listens at its UDP port
		t.Fatal(err)
	}
	client.up("server")
	r, b := wait(t, requests, "the request"), wait(t, streams, "the stream")
	if r.Method != "GET" || r.Host != "other.example:8443" || r.RequestURI != "/ip/" || r.Header.Get("Authorization") != "Bearer "+secret ||
		r.Header.Get("Capsule-Protocol") != "?1" || r.Header.Get("Upgrade") != "connect-ip" || r.TLS.Version != tls.VersionTLS13 || r.TLS.ServerName != name {
		t.Errorf("the request is %s %s of %s, %v", r.Method, r.RequestURI, r.Host, r.Header)
	}
	send := func(kind uint64, value []byte) {
		t.Helper()
		if err := errors.Join(putCapsule(b, kind, value), b.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	want(t, b, 3, append(append([]byte{6}, append(settings.Routes[0].Addr().AsSlice(), last(settings.Routes[0]).AsSlice()...)...), 0))
	want(t, b, 2, append([]byte{1, 6}, append(make([]byte, 16), 64)...))
	send(1, append([]byte{1, 6}, append(prefixes("2001:db8:a::/64")[0].Addr().AsSlice(), 64)...))
	send(3, []byte{4, 10, 0, 0, 0, 10, 255, 255, 255, 17})
	until(t, "the assignment", func() bool {
		s, _ := client.State("server")
		return s.Over == TCP && len(s.Assigned) == 1 && s.Assigned[0] == prefixes("2001:db8:a::/64")[0] && len(s.Routes) == 1 && s.Routes[0].Protocol == 17
	})
	for _, size := range []int{40, 1280, 1500, 60000} {
		pkt := inner(size, size)
		if err := client.sender.SendOne(to(at, client.Local(), pkt)); err != nil {
			t.Fatal(err)
		}
		want(t, b, 0, append([]byte{0}, pkt...))
		send(0, append([]byte{0x40, 0}, pkt...)) // the context identifier in two bytes
		if got := wait(t, client.packets, "the server's packet"); !bytes.Equal(got[28:], pkt) {
			t.Errorf("the packet of %d bytes has changed", size)
		}
	}
}

// Both ends of a TCP connection send at once, and little waits in the kernel.
func TestSocketOptions(t *testing.T) {
	p := newPair(t, TCP)
	for who, peer := range map[string]*peer{"server": p.server.peers["client"], "client": p.client.peers["server"]} {
		raw, err := peer.current.Load().w.(*tls.Conn).NetConn().(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []struct {
			name         string
			option, want int
		}{{"TCP_NODELAY", unix.TCP_NODELAY, 1}, {"TCP_NOTSENT_LOWAT", unix.TCP_NOTSENT_LOWAT, 64 << 10}, {"TCP_USER_TIMEOUT", unix.TCP_USER_TIMEOUT, 20000}} {
			raw.Control(func(fd uintptr) {
				if v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, o.option); err != nil || v != o.want {
					t.Errorf("%s of the %s is %d, %v", o.name, who, v, err)
				}
			})
		}
	}
}

// A peer that reads nothing does not block the sender. The oldest packets are dropped: none
// waits for longer than queue.MaxWait, and when the peer reads again, new ones arrive. Each packet
// that does not arrive is counted.
func TestBlockedPeer(t *testing.T) {
	a := newAuthority(t)
	server := open(t, Config{Certificate: a.certificate(name, time.Now().Add(time.Hour))})
	if err := server.SetPeers([]transport.SessionPeer{{ID: "client", Settings: &Settings{Path: "/", Secret: []byte(secret)}}}); err != nil {
		t.Fatal(err)
	}
	s, err := upgraded(t, a, server, "/", secret)
	if err != nil {
		t.Fatal(err)
	}
	from := server.up("client")
	dropped := func() uint64 {
		s, _ := server.State("client")
		return s.Dropped
	}
	sent := 0
	send := func() {
		t.Helper()
		pkt := inner(1000, 0)
		binary.BigEndian.PutUint32(pkt[40:], uint32(sent))
		sent++
		if err := server.sender.SendOne(to(from, server.Local(), pkt)); err != nil {
			t.Fatal(err)
		}
	}
	for end := sent + 1000; dropped() < 1000; send() {
		if end == sent {
			end += 1000
			time.Sleep(time.Millisecond)
		}
	}
	time.Sleep(queue.MaxWait + queue.MaxWait/2)
	send() // all others are too old
	out := server.peers["client"].current.Load().out
	if n := out.Len(); n != 1 {
		t.Errorf("%d packets wait", n)
	}
	resumed := sent
	var received, newest atomic.Int64
	var reading sync.WaitGroup
	defer reading.Wait()
	defer s.Close()
	reading.Go(func() {
		for r, before := bufio.NewReader(s), int64(-1); ; {
			_, v, err := getCapsule(r)
			if err != nil {
				return
			}
			if len(v) != 1001 {
				continue
			}
			now := int64(binary.BigEndian.Uint32(v[41:]))
			if now <= before {
				t.Errorf("packet %d follows %d", now, before)
			}
			before = now
			received.Add(1)
			newest.Store(now)
		}
	})
	until(t, "the arrival of a new packet", func() bool {
		send()
		return newest.Load() >= int64(resumed)
	})
	until(t, "the arrival or drop of each packet", func() bool { return uint64(received.Load())+dropped() == uint64(sent) })
}

// The same over IPv6.
func TestIPv6(t *testing.T) {
	a := newAuthority(t)
	local := netip.MustParseAddr("::1")
	server := open(t, Config{Local: netip.AddrPortFrom(local, 0), Certificate: a.certificate("::1", time.Now().Add(time.Hour))})
	if err := server.SetPeers([]transport.SessionPeer{{ID: "client", Settings: &Settings{Path: "/", Secret: []byte(secret)}}}); err != nil {
		t.Fatal(err)
	}
	for _, over := range []Over{UDP, TCP} {
		client := open(t, Config{Local: netip.AddrPortFrom(local, 7)})
		settings := &Settings{Path: "/", Secret: []byte(secret), Roots: a.pool(), Over: over} // without a name: the address
		if err := client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: server.Local(), Settings: settings}}); err != nil {
			t.Fatal(err)
		}
		client.up("server")
		from := server.up("client")
		if from.Addr() != local {
			t.Errorf("%s: the client is at %v", over, from)
		}
		pkt := inner(1280, 1)
		for _, way := range []struct {
			a, b     *end
			at, from netip.AddrPort
		}{{client, server, server.Local(), from}, {server, client, from, server.Local()}} {
			if err := way.a.sender.SendOne(to(way.at, way.a.Local(), pkt)); err != nil {
				t.Fatal(err)
			}
			got := wait(t, way.b.packets, "the packet")
			ip := header.IPv6(got)
			source, dest := header.Ports(got[header.IPv6Len:])
			if !bytes.Equal(ip.Source(), local.AsSlice()) || source != way.from.Port() || dest != way.b.Local().Port() || !bytes.Equal(got[header.IPv6Len+header.UDPLen:], pkt) {
				t.Errorf("%s: the packet is from port %d to port %d, or has changed", over, source, dest)
			}
		}
		client.close()
		server.down("client")
	}
}
