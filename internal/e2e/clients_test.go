package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/heartbeat"
	"sixfour/encap/icmp"
	wire "sixfour/encap/tic"
	"sixfour/internal/api"
	"sixfour/internal/rig"
	"sixfour/internal/session/tic"
	"sixfour/transport"
	"sixfour/transport/access"
	"sixfour/transport/ayiya"
	"sixfour/transport/tsp"
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
	server := newOldServer(t, h.b, at, "2001:db8:77:5::/64")
	a := start(t, h.a, jsonClient())
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
	if s := a.session(t, api.SessionRetrying, "nothing listens at TCP port 14629"); s.Address != "2001:db8:77:5::1/64" {
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

// On a host with a default route of IPv6, a client gets its prefix, and leaves that route alone.
func TestClientKeepsDefaultRoute(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	must(t, h.a.AddAddr("va", netip.MustParsePrefix("2001:db8:5::1/64")))
	must(t, h.a.AddRoute(netip.MustParsePrefix("::/0"), netip.MustParseAddr("2001:db8:5::2"), "va"))
	newOldServer(t, h.b, netip.AddrPortFrom(outerB, 14629), "2001:db8:77:5::/64")
	a := start(t, h.a, jsonClient())
	hasAddress(t, h.a, "2001:db8:77:5::1/64")
	a.session(t, api.SessionUp)
	a.wait(t, "the tunnel does not get the default route")
	if got := routes(t, h.a, "six0"); strings.Contains(got, "default") {
		t.Errorf("six0 has the routes\n%s", got)
	}
	a.mustReload(t, jsonClient(`routes = ["2001:db8:ff::/48"]`))
	reachable(t, h.a, netip.MustParseAddr("2001:db8:ff::80"))
}

// stub is a broker of a test for the servers of the protocols. Accounts are in the networks
// 2001:db8:ff:N::/64; every echo request of a client is answered.
type stub struct {
	mu       sync.Mutex
	accounts []access.Account
	refused  []access.Reason
	clients  []*stubClient
}

type stubClient struct {
	*stub
	account access.Account
	link    access.Link
	from    netip.AddrPort
}

// add adds an account, whose end has the address 2001:db8:ff:N::2.
func (s *stub) add(name, secret, kind string) access.Account {
	n := len(s.accounts) + 1
	e := access.Endpoint{Broker: netip.MustParseAddr(fmt.Sprintf("2001:db8:ff:%x::1", n)), Client: netip.MustParseAddr(fmt.Sprintf("2001:db8:ff:%x::2", n))}
	a := access.Account{Name: name, Secret: secret, Number: uint64(n), Type: kind, Endpoint: e, MTU: 1280}
	s.accounts = append(s.accounts, a)
	return a
}

func (s *stub) find(holds func(access.Account) bool) (access.Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.IndexFunc(s.accounts, holds); i >= 0 {
		return s.accounts[i], nil
	}
	return access.Account{}, access.Refuse(access.UnknownAccount, "there is no such account")
}

func (s *stub) Named(name string) (access.Account, error) {
	return s.find(func(a access.Account) bool { return a.Name == name })
}

func (s *stub) At(at netip.Addr) (access.Account, error) {
	return s.find(func(a access.Account) bool { return a.Endpoint.Client == at })
}

func (s *stub) Attach(_ context.Context, a access.Account, c access.Attachment) (access.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := &stubClient{stub: s, account: a, link: c.Link, from: c.From}
	s.clients = append(s.clients, one)
	return one, nil
}

func (s *stub) Refuse(_ string, _ netip.AddrPort, _ string, why *access.Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, why.Reason)
}

func (s *stub) Allow(netip.Addr) bool { return true }

// at returns from where the last client has come.
func (s *stub) at() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) == 0 {
		return netip.AddrPort{}
	}
	return s.clients[len(s.clients)-1].from
}

func (c *stubClient) Lease() access.Lease {
	return access.Lease{Account: c.account.Name, Prefix: netip.MustParsePrefix(fmt.Sprintf("2001:db8:1:%x::/64", c.account.Number)), Endpoint: c.account.Endpoint, MTU: c.account.MTU}
}

func (c *stubClient) Receive(packet []byte) drop.Reason {
	if answer := echoes(packet); answer != nil {
		_ = c.link.Send(answer)
	}
	return drop.None
}

func (c *stubClient) Heard(from, _ netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from = from
}

func (c *stubClient) Leave(string) {}

// A client of AYIYA works, moves with the address of its host, and says what may be wrong when
// the server takes none of its packets.
func TestAYIYAClient(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	s := new(stub)
	account := s.add("six0", "0123456789abcdef0123456789abcdef", "ayiya")
	must(t, h.b.Do(func() error {
		server, err := ayiya.NewServer(ayiya.ServerConfig{Authority: s, Local: netip.AddrPortFrom(outerB, 5072)}, transport.Options{})
		if err == nil {
			t.Cleanup(func() { server.Close() })
		}
		return err
	}))
	password := secretFile(t, "")
	file := func(text string) string {
		must(t, os.WriteFile(password, []byte(text), 0o600))
		return fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"ayiya\"\nserver = \"%v\"\nidentity = \"%v\"\npassword_file = %q\nkeepalive = \"1s\"\nroutes = [\"::/0\"]\n", outerB, account.Endpoint.Client, password)
	}
	a := start(t, h.a, file("wrong")+"dead_after = 2\n")
	a.session(t, api.SessionRetrying, "is the password right")
	a.mustReload(t, file(account.Secret))
	a.session(t, api.SessionUp)
	far := netip.MustParseAddr("2001:db8:ff::80")
	reachable(t, h.a, far)
	other := netip.MustParseAddr("203.0.113.77")
	must(t, h.a.AddAddr("va", netip.PrefixFrom(other, 23)))
	must(t, h.a.DelAddr("va", netip.PrefixFrom(outerA, 24)))
	reachable(t, h.a, far)
	if at := s.at(); at.Addr() != other {
		t.Errorf("the client is at %v", at)
	}
}

// What a server of TIC says is applied: here a tunnel in AYIYA. A wrong password is reported in
// words.
func TestTICClient(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	s := new(stub)
	account := s.add("anna", "0123456789abcdef", "ayiya")
	must(t, h.b.Do(func() error {
		server, err := ayiya.NewServer(ayiya.ServerConfig{Authority: s, Local: netip.AddrPortFrom(outerB, 5072)}, transport.Options{})
		if err != nil {
			return err
		}
		t.Cleanup(func() { server.Close() })
		dialogue, err := tic.NewServer(tic.Config{Authority: s, Local: netip.AddrPortFrom(outerB, 3874), Plain: true, Name: "test", POP: wire.POP{ID: "test", IPv4: outerB}})
		if err == nil {
			t.Cleanup(func() { dialogue.Close() })
		}
		return err
	}))
	password := secretFile(t, "")
	file := func(text string) string {
		must(t, os.WriteFile(password, []byte(text), 0o600))
		return fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"tic\"\nserver = \"%v\"\nuser = \"anna\"\npassword_file = %q\n", outerB, password)
	}
	a := start(t, h.a, file("wrong"))
	a.session(t, api.SessionRetrying, "password")
	a.mustReload(t, file(account.Secret))
	got := a.session(t, api.SessionUp)
	hasAddress(t, h.a, account.Endpoint.Client.String()+"/64")
	reachable(t, h.a, netip.MustParseAddr("2001:db8:ff::80"))
	if got = a.session(t, api.SessionUp); got.Type != "ayiya" || got.MTU != 1280 {
		t.Errorf("the session is %+v", got)
	}
}

// A client of TSP gets an address and a prefix, in UDP or in protocol 41, as the server offers.
// A wrong password is reported in words.
func TestTSPClient(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	s := new(stub)
	account := s.add("anna", "0123456789abcdef", "")
	var raw *net.IPConn
	serve := func(with func(netip.Addr) access.Link) (end func()) {
		t.Helper()
		var server *tsp.Server
		must(t, h.b.Do(func() (err error) {
			server, err = tsp.NewServer(tsp.ServerConfig{Authority: s, Local: netip.AddrPortFrom(outerB, 3653), Raw: with}, transport.Options{})
			return err
		}))
		end = sync.OnceFunc(func() { server.Close() })
		t.Cleanup(end)
		return end
	}
	must(t, h.b.Do(func() (err error) {
		raw, err = net.ListenIP("ip4:41", &net.IPAddr{IP: outerB.AsSlice()})
		return err
	}))
	t.Cleanup(func() { raw.Close() })
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := raw.ReadFromIP(b)
			if err != nil {
				return
			}
			if answer := echoes(b[:n]); answer != nil {
				_, _ = raw.WriteToIP(answer, from)
			}
		}
	}()
	password := secretFile(t, "wrong")
	file := fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"tsp\"\nserver = \"%v\"\nuser = \"anna\"\npassword_file = %q\nprefix_length = 64\n", outerB, password)
	end := serve(nil)
	a := start(t, h.a, file)
	a.session(t, api.SessionRetrying, "password")
	must(t, os.WriteFile(password, []byte(account.Secret), 0o600))
	a.mustReload(t, file)
	far := netip.MustParseAddr("2001:db8:ff::80")
	reachable(t, h.a, far)
	if got := a.session(t, api.SessionUp); got.Type != "UDP" || got.Address != "2001:db8:ff:1::2/64" || !slices.Equal(got.Routed, []string{"2001:db8:1:1::/64"}) {
		t.Errorf("the session is %+v", got)
	}
	end()
	serve(func(netip.Addr) access.Link { return nowhere{} })
	a.mustReload(t, file+"want = \"v6v4\"\n")
	eventually(t, "the tunnel is in protocol 41", func() error {
		if _, st := a.status(t); st.Session.Type != "6in4" || st.State.Phase != api.Up || st.State.Encap != "" {
			return fmt.Errorf("%+v, %+v", st.Session, st.State)
		}
		return nil
	})
	pings(t, h.a, far, rig.PingOptions{})
}

// nowhere is a link whose packets are discarded.
type nowhere struct{}

func (nowhere) Send([]byte) error   { return nil }
func (nowhere) End(*access.Refusal) {}
