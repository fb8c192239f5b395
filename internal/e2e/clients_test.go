package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/encap/heartbeat"
	"sixfour/encap/icmp"
	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// session waits until the session of the daemon's first tunnel has a state and texts in its
// error.
func (d *daemon) session(t *testing.T, state string, texts ...string) (s api.Session) {
	t.Helper()
	eventually(t, "the session is "+state+" with "+strings.Join(texts, ", "), func() error {
		_, st := d.status(t)
		if st.Session == nil {
			return fmt.Errorf("there is none")
		}
		if s = *st.Session; s.State != state {
			return fmt.Errorf("%+v", s)
		}
		for _, text := range texts {
			if !strings.Contains(s.Error+s.Said, text) {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	return s
}

// echoes answers an echo request of ICMPv6 to any address.
func echoes(packet []byte) []byte {
	if len(packet) < header.IPv6Len+icmp.HeaderLen || packet[6] != header.ICMPv6 || packet[header.IPv6Len] != icmp.EchoRequest6 {
		return nil
	}
	b := make([]byte, len(packet))
	if !icmp.EchoReply(b, packet) {
		return nil
	}
	return b
}

// A client tells the server where it is, at once and when its address has changed, and the
// tunnel works meanwhile.
func TestHeartbeatClient(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	var beats *net.UDPConn
	must(t, h.b.Do(func() (err error) {
		beats, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(outerB, heartbeat.Port)))
		return err
	}))
	t.Cleanup(func() { beats.Close() })
	beat := func(command heartbeat.Command, from netip.Addr) {
		t.Helper()
		b := make([]byte, 1000)
		must(t, beats.SetReadDeadline(time.Now().Add(patience)))
		for {
			n, at, err := beats.ReadFromUDPAddrPort(b)
			must(t, err)
			r, err := heartbeat.Parse(b[:n])
			if err != nil || !r.Verify("hartslag", heartbeat.MD5) || r.Inner != netip.MustParseAddr("fc00::2") {
				t.Fatalf("a beat is %q, %v", b[:n], err)
			}
			if r.Command == command && at.Addr().Unmap() == from {
				return
			}
		}
	}
	a := start(t, h.a, fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"heartbeat\"\nserver = \"%v\"\nidentity = \"fc00::2\"\npassword_file = %q\nkeepalive = \"1s\"\n", outerB, secretFile(t, "hartslag")))
	beat(heartbeat.Tunnel, outerA)
	a.session(t, api.SessionUp)
	other := netip.MustParseAddr("203.0.113.77")
	must(t, h.a.AddAddr("va", netip.PrefixFrom(other, 23)))
	must(t, h.a.DelAddr("va", netip.PrefixFrom(outerA, 24)))
	beat(heartbeat.Tunnel, other)
	if shown := a.control(t, "status"); !strings.Contains(shown, "server     203.0.113.20 up for ") {
		t.Errorf("sixfourctl status shows\n%s", shown)
	}
}

// oldServer is a server of seed 004's protocol, as the reference is: it answers an id with a
// prefix, and then takes packets without framing. It answers echo requests to any address.
type oldServer struct {
	listener *net.TCPListener
	prefix   string

	mu    sync.Mutex
	conns []net.Conn
	ids   []string
}

func newOldServer(t *testing.T, n *rig.Namespace, at netip.AddrPort, prefix string) *oldServer {
	t.Helper()
	s := &oldServer{prefix: prefix}
	must(t, n.Do(func() (err error) {
		s.listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		return err
	}))
	t.Cleanup(s.close)
	go func() {
		for {
			c, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			go s.serve(c)
		}
	}()
	return s
}

func (s *oldServer) serve(c net.Conn) {
	defer c.Close()
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.ids = append(s.ids, string(b[:n]))
	s.mu.Unlock()
	if _, err := c.Write([]byte(`{"Prefix":"` + s.prefix + `"}`)); err != nil {
		return
	}
	for { // each read is taken for one packet
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if answer := echoes(b[:n]); answer != nil {
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
}

// close ends the server and its connections.
func (s *oldServer) close() {
	s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
}

// hasAddress waits until six0 has an address.
func hasAddress(t *testing.T, n *rig.Namespace, want string) {
	t.Helper()
	eventually(t, "six0 has "+want, func() error {
		if all := addressesOf(t, n, "six0"); !slices.Contains(all, netip.MustParsePrefix(want)) {
			return fmt.Errorf("it has %v", all)
		}
		return nil
	})
}

// jsonClient is a configuration of a client.
func jsonClient(lines ...string) string {
	return fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"json\"\nserver = \"%v\"\nid = \"00:11:22:aa:bb:cc\"\n", outerB) + strings.Join(lines, "\n") + "\n"
}

// A client of an old server gets its prefix and the default route, keeps both and its interface
// while the server is away, and works again when it is back, with the prefix that it has then.
func TestJSONClient(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	at := netip.AddrPortFrom(outerB, 14629)
	a := start(t, h.a, jsonClient())
	a.session(t, api.SessionRetrying, "nothing listens at TCP port 14629")
	server := newOldServer(t, h.b, at, "2001:db8:77:5::/64")
	far := netip.MustParseAddr("2001:db8:ff::80")
	reachable(t, h.a, far)
	s := a.session(t, api.SessionUp)
	if s.Address != "2001:db8:77:5::1/64" || s.Type != "TCP" || server.ids[0] != `{"Id":"00:11:22:aa:bb:cc"}` {
		t.Errorf("the session is %+v, the server was told %q", s, server.ids)
	}
	index := func() int {
		l, err := h.a.Handle().LinkByName("six0")
		must(t, err)
		return l.Attrs().Index
	}
	before := index()
	server.close()
	if s := a.session(t, api.SessionRetrying); s.Address != "2001:db8:77:5::1/64" {
		t.Errorf("the session is %+v", s)
	}
	hasAddress(t, h.a, "2001:db8:77:5::1/64")
	newOldServer(t, h.b, at, "2001:db8:77:6::/64")
	a.session(t, api.SessionUp)
	hasAddress(t, h.a, "2001:db8:77:6::1/64")
	reachable(t, h.a, far)
	if index() != before {
		t.Error("the interface is another one")
	}
	if shown := a.control(t, "status"); !strings.Contains(shown, "granted    2001:db8:77:6::1/64, prefix 2001:db8:77:6::/64, in TCP, ") {
		t.Errorf("sixfourctl status shows\n%s", shown)
	}
	a.mustReload(t, jsonClient("mss_clamp = false"))
	if _, st := a.status(t); st.Session.Address != "2001:db8:77:6::1/64" {
		t.Errorf("after a reload the session is %+v", st.Session)
	}
}
