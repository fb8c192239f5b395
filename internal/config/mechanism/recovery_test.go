package mechanism_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sixfour/encap/agent/agenttest"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/encap/resolve"
	"sixfour/encap/sixa44"
	a44 "sixfour/encap/sixa44/node"
	"sixfour/encap/sixbed4"
	bed4 "sixfour/encap/sixbed4/node"
	"sixfour/encap/teredo"
	teredonode "sixfour/encap/teredo/node"
)

// site is a network behind a NAT, with one client of a mechanism.
type site struct {
	*agenttest.Host
	lost int // how often its NAT has forgotten everything
}

// forget makes the NAT forget its mappings, and give other ports from now on.
func (s *site) forget() {
	clear(s.Maps)
	clear(s.Open)
	s.lost++
	for i := range s.lost {
		s.Maps[header.Mapping{Addr: 1, Port: uint16(1 + i)}] = 1
	}
}

// me returns the inner address.
func (s *site) me() (a header.Word6, ok bool) {
	l := s.Agent.Learnt()
	if len(l.Addresses) == 0 {
		return a, false
	}
	return header.Word6Of(l.Addresses[0].Prefix.Addr())
}

// Networks lose packets, NATs forget their mappings, the server is away for a while, and strangers
// send packets with the sources of others. After that every client has an address again, with the
// address and port that its NAT gives it now, and all reach each other; nobody got a packet of the
// strangers.
func TestRecovery(t *testing.T) {
	server := agenttest.HostAt(other)
	ends := map[string]struct {
		isData         func([]byte) bool
		server, client resolve.Mechanism
		at             []string
		port, from     uint16
		kinds          []agenttest.NAT
	}{
		"teredo": {teredo.IsData, teredonode.NewServer(netip.MustParseAddr(other), netip.MustParseAddr(otherSecond)), teredonode.NewClient(50001, server, resolve.Host{}),
			[]string{other, otherSecond}, teredo.Port, 50001, []agenttest.NAT{agenttest.Restricted, agenttest.PortRestricted, agenttest.Restricted}},
		"6a44": {teredo.IsData, a44.Relay{Prefix: netip.MustParsePrefix("2001:db8:44::/48")}, a44.Client{Relay: server},
			[]string{other}, sixa44.Port, sixa44.Port, []agenttest.NAT{agenttest.Symmetric, agenttest.PortRestricted, agenttest.Restricted}},
		"6bed4": {func(b []byte) bool { return teredo.IsData(b) && !nd.Is(header.IPv6(b)) }, bed4.NewRouter(sixbed4.Port, netip.MustParsePrefix("2001:db8:b:b::/64")), bed4.NewPeer(40000, server, true),
			[]string{other}, sixbed4.Port, 40000, []agenttest.NAT{agenttest.Symmetric, agenttest.PortRestricted, agenttest.Restricted}},
	}
	for name, e := range ends {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(name, " ", seed), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(seed, 3))
				w := agenttest.NewWorld(t, e.isData)
				s := w.Add("server", e.server, e.port, agenttest.None, e.at[0], e.at...)
				if name == "6bed4" { // the kernel forwards between peers
					s.Inner = func(h *agenttest.Host, ip header.IPv6) { h.Say(ip) }
				}
				var sites []*site
				for i, kind := range e.kinds {
					sites = append(sites, &site{Host: w.Add(fmt.Sprint("client ", i), e.client, e.from, kind, fmt.Sprintf("203.0.%d.7", 113+i), fmt.Sprintf("10.0.%d.5", i))})
				}
				trouble(r, w, sites, func() bool { return seed%2 == 0 && r.IntN(2) == 0 })
				w.Lose = nil
				w.Run(45 * time.Minute)
				for _, a := range sites {
					at, why := a.Agent.(resolve.Qualifier).Mapped()
					if !at.IsValid() || header.MappingOf(at).Addr != a.Out || !mapped(a, at.Port()) {
						t.Fatalf("%s thinks that it is at %v (%q); its NAT has %v", a.Name, at, why, a.Maps)
					}
				}
				for _, a := range sites {
					for _, b := range sites {
						if a != b {
							reaches(t, w, a, b)
						}
					}
				}
				for _, a := range sites {
					if a.Heard("forged") {
						t.Errorf("%s got a packet with the source of another one", a.Name)
					}
				}
			})
		}
	}
}

// mapped reports whether a NAT has a port for the client.
func mapped(a *site, port uint16) bool {
	for _, p := range a.Maps {
		if p == port {
			return true
		}
	}
	return false
}

// trouble lets an hour pass in which everything goes wrong. Away says whether the server is away
// for the next while.
func trouble(r *rand.Rand, w *agenttest.World, sites []*site, away func() bool) {
	loss, gone := 0.0, false
	w.Lose = func(from, to header.Mapping, _ []byte) bool {
		at := agenttest.IP4(other)
		return gone && (from.Addr&^1 == at || to.Addr&^1 == at) || r.Float64() < loss
	}
	for end := w.Now.Add(time.Hour); w.Now.Before(end); w.Run(time.Duration(1+r.IntN(30)) * time.Second) {
		a, b := sites[r.IntN(len(sites))], sites[r.IntN(len(sites))]
		switch r.IntN(6) {
		case 0:
			loss = []float64{0, 0.1, 0.5, 1}[r.IntN(4)]
		case 1:
			a.forget()
		case 2:
			gone = away()
		case 3:
			forge(r, w, a, b)
		default:
			if src, ok := a.me(); ok && a != b {
				if dst, ok := b.me(); ok {
					a.Say(agenttest.UDP(src, dst, "trouble"))
				}
			}
		}
	}
}

// forge sends a packet to a from a stranger, whose inner source is the address of b.
func forge(r *rand.Rand, w *agenttest.World, a, b *site) {
	dst, ok := a.me()
	src, known := b.me()
	if !ok || !known {
		return
	}
	from := header.Mapping{Addr: 9<<24 | r.Uint32()>>8, Port: uint16(1 + r.IntN(1<<16-1))}
	a.Receive(from, a.At[0], agenttest.UDP(src, dst, "forged"))
	s := w.Hosts[0]
	s.Receive(from, s.At[0], agenttest.UDP(src, dst, "forged"))
}

// reaches checks that packets from a arrive at b within some attempts.
func reaches(t *testing.T, w *agenttest.World, a, b *site) {
	t.Helper()
	var why drop.Reason
	for i := range 10 {
		src, _ := a.me()
		dst, _ := b.me()
		text := fmt.Sprintf("%s to %s, %d", a.Name, b.Name, i)
		why = a.Say(agenttest.UDP(src, dst, text))
		if w.Run(2 * time.Second); b.Heard(text) {
			return
		}
	}
	t.Errorf("%s does not reach %s: %v; drops %v, %v", a.Name, b.Name, why, a.Drops, b.Drops)
}
