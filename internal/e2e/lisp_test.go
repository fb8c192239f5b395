package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"sixfour/encap/lisp"
	"sixfour/internal/api"
	"sixfour/internal/rig"
)

const (
	lispKey  = "the key of all sites"
	lispPort = lisp.ControlPort
)

// mapServer is a map server and map resolver for tests. It was written with the messages of
// package lisp, and otherwise apart from both ends.
type mapServer struct {
	conn *net.UDPConn

	mu    sync.Mutex
	sites map[lisp.EID]netip.AddrPort
}

func newMapServer(t *testing.T, n *rig.Namespace, at netip.Addr) *mapServer {
	t.Helper()
	c, err := n.ListenUDP(netip.AddrPortFrom(at, lispPort))
	must(t, err)
	s := &mapServer{conn: c, sites: make(map[lisp.EID]netip.AddrPort)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve()
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return s
}

func (s *mapServer) serve() {
	b := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		to, answer := s.answer(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		if to.IsValid() {
			_, _ = s.conn.WriteToUDPAddrPort(answer, to)
		}
	}
}

func (s *mapServer) answer(b []byte, from netip.AddrPort) (to netip.AddrPort, answer []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, err := lisp.ParseRegistration(b); err == nil && m.Type == lisp.TypeRegister && m.Verify(b, []byte(lispKey)) == nil && m.Nonce >= beforeNonce {
		for _, e := range m.Records {
			s.sites[e.EID] = from
		}
		m.Type = lisp.TypeNotify
		return from, m.Append(nil, []byte(lispKey), false)
	}
	packet, err := lisp.Encapsulated(b)
	if err != nil {
		return to, nil
	}
	inner, _, message, err := lisp.Inside(packet)
	if err != nil {
		return to, nil
	}
	q, err := lisp.ParseRequest(message)
	if err != nil {
		return to, nil
	}
	asked := q.EIDs[0]
	for e, at := range s.sites {
		if e.Contains(asked) {
			return at, b
		}
	}
	p, _ := asked.Prefix.Addr().Prefix(24)
	r := lisp.Reply{Nonce: q.Nonce, Records: []lisp.Record{{TTL: 1, EID: lisp.EID{Instance: asked.Instance, Prefix: p}, Action: lisp.NativelyForward}}}
	return netip.AddrPortFrom(q.Locators[0], inner.Port()), r.Append(nil)
}

// beforeNonce is a nonce that the xTRs had before a restart, with a clock that was wrong.
const beforeNonce = 1 << 62

// nonceFile returns the file with nonces beside that of a key.
func nonceFile(key string) string { return filepath.Join(filepath.Dir(key), "nonce") }

// site returns the configuration of the xTR of a site.
func (s *mapServer) site(t *testing.T, number int, local netip.Addr, lines string) string {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(key, []byte(lispKey+"\n"), 0o600))
	must(t, os.WriteFile(nonceFile(key), fmt.Appendf(nil, "%d\n", beforeNonce), 0o600))
	at := s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	return fmt.Sprintf("[[tunnel]]\nname = \"lisp0\"\nmode = \"lisp\"\nrole = \"xtr\"\nlocal = \"%v\"\neid = [\"2001:db8:e%[2]d::/48\", \"10.%[2]d.0.0/16\"]\n"+
		"address = [\"2001:db8:e%[2]d::1/48\", \"10.%[2]d.0.1/16\"]\nroutes = [\"2001:db8:e0::/44\", \"10.0.0.0/8\"]\n"+
		"map_resolver = \"%[3]v\"\nmap_server = \"%[3]v\"\nkey_file = %[4]q\nnonce_file = %[6]q\n%[5]s", local, number, at, key, lines, nonceFile(key))
}

// has waits until status shows what the daemon knows of a prefix.
func (d *daemon) has(t *testing.T, prefix, state string) {
	t.Helper()
	eventually(t, prefix+" is "+state, func() error {
		_, s := d.status(t)
		if !slices.ContainsFunc(s.Neighbours, func(n api.Neighbour) bool { return n.Address == prefix && n.State == state }) {
			return fmt.Errorf("status has %+v", s.Neighbours)
		}
		return nil
	})
}

// Two sites find each other by the mapping system, and exchange IPv6 and IPv4 over locators of
// either IP version.
func TestLISP(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ name, a, b, server string }{
		{"IPv4 locators", "203.0.113.10", "203.0.113.20", "203.0.113.53"},
		{"IPv6 locators", "2001:db8:ff::10", "2001:db8:ff::20", "2001:db8:ff::53"},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			server := netip.MustParseAddr(f.server)
			must(t, h.b.AddAddr("vb", netip.PrefixFrom(server, server.BitLen()/4*3)))
			s := newMapServer(t, h.b, server)
			instance := "instance = 77\n"
			a := start(t, h.a, s.site(t, 1, netip.MustParseAddr(f.a), instance+"mtu = 1500\n"))
			b := start(t, h.b, s.site(t, 2, netip.MustParseAddr(f.b), instance))
			for _, d := range []*daemon{a, b} {
				_, st := d.status(t)
				d.has(t, st.Neighbours[0].Address, "registered")
			}
			// A packet of 1500 bytes without DF is sent in two halves, which wait for the mapping. The map server is on b, which
			// must not take the MTU of lo for that of the path.
			pings(t, h.a, netip.MustParseAddr("10.2.0.1"), rig.PingOptions{Size: 1472})
			for _, d := range []*daemon{a, b} {
				if _, st := d.status(t); st.Out.Drops["too_big"] != 0 {
					t.Errorf("%+v", st.Out)
				}
			}
			for _, to := range []string{"2001:db8:e2::1", "10.2.0.1"} {
				// The first packet waits for the mapping.
				pings(t, h.a, netip.MustParseAddr(to), rig.PingOptions{Size: 1000})
				transfer(t, h.a, h.b, netip.MustParseAddr(to), 1<<20)
			}
			a.has(t, "2001:db8:e2::/48", "up")
			a.has(t, "10.2.0.0/16", "up")
			if res, err := rig.Ping(t.Context(), h.a, netip.MustParseAddr("2001:db8:e9::1"), rig.PingOptions{Timeout: 300 * time.Millisecond}); err != nil || res.Received != 0 {
				t.Errorf("a site that nobody has registered: %+v, %v", res, err)
			}
			a.has(t, "2001:d00::/24", "native")
		})
	}
}
