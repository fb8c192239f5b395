package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/rig"
)

// resolving is the network of a test in which a's own DNS server has the names.
type resolving struct {
	hosts
	names *rig.Names
	files map[string]string // that a's daemon sees
}

func newResolving(t *testing.T) resolving {
	t.Helper()
	h := newHosts6(t)
	names, err := h.a.ServeNames()
	must(t, err)
	t.Cleanup(func() { names.Close() })
	file := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(file, []byte(rig.Resolv), 0o644))
	shortenNeighbourTimers(t, h.a, "va")
	return resolving{h, names, map[string]string{"/etc/resolv.conf": file}}
}

// shortenNeighbourTimers makes a device notice soon that a neighbour is gone.
func shortenNeighbourTimers(t *testing.T, ns *rig.Namespace, dev string) {
	t.Helper()
	for _, family := range []string{"ipv4", "ipv6"} {
		for key, value := range map[string]string{"base_reachable_time_ms": "500", "delay_first_probe_time": "1", "retrans_time_ms": "100"} {
			must(t, ns.Sysctl("net/"+family+"/neigh/"+dev+"/"+key, value))
		}
	}
}

// A peer that is a name moves to another address: packets follow it once there is a reason
// to look the name up, and for a while packets from the old address are accepted, too.
func TestNameMoves(t *testing.T) {
	const hub = "mode = \"gre\"\n" + local4 + "address = [\"10.0.0.1/30\"]\n[[tunnel.peer]]\nname = \"b\"\nallowed = [\"10.0.0.2/32\"]\nremote = \"203.0.113.20\"\n"
	for _, c := range []struct {
		kind
		old, new netip.Addr
	}{
		{kind{"hub", hub, "mode = \"gre\"\n" + over4 + inner4, ip4A, ip4B, 24, nil}, outerB, netip.MustParseAddr("203.0.113.21")},
		{kindGRE6, outer6B, netip.MustParseAddr("2001:db8:ff::21")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newResolving(t)
			if c.old.Is4() {
				n.names.Set("b.example", c.old, netip.MustParseAddr("3fff::99"))
			} else {
				n.names.Set("b.example", c.old, netip.MustParseAddr("192.0.2.99"))
			}
			inB := c.toB[0]
			a := launchWith(t, n.a, strings.Replace(c.atA(), `remote = "`+c.old.String()+`"`, `remote = "b.example"`, 1), n.files)
			a.wait(t, "ready")
			start(t, n.b, strings.Replace(c.atB(), `local = "`+c.old.String()+`"`, `local = "auto"`, 1))
			reachable(t, n.a, inB)

			bits := 24
			if c.old.Is6() {
				bits = 64
			}
			n.names.Set("b.example", c.new)
			must(t, n.b.DelAddr("vb", netip.PrefixFrom(c.old, bits)))
			must(t, n.b.AddAddr("vb", netip.PrefixFrom(c.new, bits)))
			reachable(t, n.a, inB) // b follows its address, and a the name
			eventually(t, "the status has the new address", func() error {
				_, s := a.status(t)
				state := s.State
				if len(s.Peers) > 0 {
					state = s.Peers[0].State
				}
				if state.Remote != c.new.String() {
					return errors.New(state.Remote)
				}
				return nil
			})

			// Late packets from the old address are accepted, and only from there.
			out, err := n.a.Capture("six0")
			must(t, err)
			defer out.Close()
			wire, err := n.b.Capture("vb")
			must(t, err)
			defer wire.Close()
			inner := greOf(experimental(c.toB[0], c.toA[0]))
			for _, from := range []string{"203.0.113.99", "2001:db8:ff::99", c.old.String()} {
				src := netip.MustParseAddr(from)
				switch {
				case src.Is4() != c.old.Is4():
					continue
				case src.Is4():
					n.inject(t, wire, ip4(src, outerA, header.GRE, inner))
				default:
					n.inject(t, wire, ip6(src, outer6A, header.GRE, inner))
				}
			}
			_, err = out.Find(t.Context(), func(f rig.Frame) bool { return strings.Contains(string(f.Packet()), "known by its content") })
			must(t, err)
			eventually(t, "the stranger's is dropped", func() error {
				if s, _ := a.status(t); s.Stray.Drops["foreign_source"] == 0 {
					return errors.New("not yet")
				}
				return nil
			})
		})
	}
}

// local = "auto" follows IPv6 addresses as it follows IPv4 addresses.
func TestLocalAuto6(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	start(t, h.b, kindGRE6.atB())
	a := start(t, h.a, strings.Replace(kindGRE6.atA(), `local = "2001:db8:ff::10"`, `local = "auto"`, 1))
	reachable(t, h.a, inB)
	was, now := netip.PrefixFrom(outer6A, 64), netip.MustParsePrefix("2001:db8:ff::77/64")
	must(t, h.a.AddAddr("va", now))
	must(t, h.a.DelAddr("va", was))
	a.wait(t, `"local": "2001:db8:ff::77"`)
	must(t, h.a.AddAddr("va", was))
	must(t, h.a.DelAddr("va", now))
	reachable(t, h.a, inB)
	pings(t, h.b, in6A, rig.PingOptions{Size: 4000})
}

// local = "auto" uses a stable address, not the temporary one that the kernel prefers for
// its own connections (RFC 8981), and follows when it is replaced.
func TestLocalAutoIsNotTemporary(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	must(t, h.a.DelAddr("va", netip.PrefixFrom(outer6A, 64)))
	must(t, h.a.Sysctl("net/ipv6/conf/va/use_tempaddr", "2"))
	link, err := h.a.Handle().LinkByName("va")
	must(t, err)
	stays := func(a netip.Addr) *netlink.Addr {
		return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD | unix.IFA_F_MANAGETEMPADDR, ValidLft: 86400, PreferedLft: 80000}
	}
	must(t, h.a.Handle().AddrAdd(link, stays(outer6A)))
	eventually(t, "the kernel takes a temporary address", func() error {
		r, err := h.a.Handle().RouteGet(outer6B.AsSlice())
		if err == nil && r[0].Src.Equal(outer6A.AsSlice()) {
			err = errors.New("not yet")
		}
		return err
	})
	start(t, h.b, kindGRE6.atB())
	a := start(t, h.a, strings.Replace(kindGRE6.atA(), `local = "2001:db8:ff::10"`, `local = "auto"`, 1))
	reachable(t, h.a, inB)
	if _, s := a.status(t); s.State.Local != outer6A.String() {
		t.Errorf("from %s", s.State.Local)
	}
	other := netip.MustParseAddr("2001:db8:ff::77")
	must(t, h.a.Handle().AddrAdd(link, stays(other)))
	must(t, h.a.Handle().AddrDel(link, stays(outer6A)))
	a.wait(t, `"local": "`+other.String()+`"`)
}

// An ISATAP host's router may be a name, also one that does not resolve yet.
func TestRouterName(t *testing.T) {
	t.Parallel()
	n := newResolving(t)
	start(t, n.b, strings.NewReplacer("203.0.113.10", "203.0.113.20").Replace(tunnelOf(kindISATAP.a, 1))) // b is the router here
	a := launchWith(t, n.a, "[[tunnel]]\nname = \"six0\"\nmode = \"isatap\"\nrouters = [\"isatap.example\"]\nlocal = \"203.0.113.10\"\n", n.files)
	a.wait(t, "ready")
	began := time.Now()
	n.names.Set("isatap.example", outerB)
	reachable(t, n.a, netip.MustParseAddr("2001:db8:5efe:1:200:5efe:203.0.113.20"))
	t.Logf("after %v", time.Since(began).Round(time.Second))
	link, err := n.a.Handle().LinkByName("six0")
	must(t, err)
	routes, err := n.a.Handle().RouteList(link, netlink.FAMILY_V6)
	must(t, err)
	for _, r := range routes {
		if r.Dst == nil || r.Dst.String() == "::/0" {
			return
		}
	}
	t.Errorf("no default route: %v", routes)
}

// A name may have several addresses: if one does not answer, the next one is used, again
// and again, and the status shows it.
func TestNameHasDeadAddress(t *testing.T) {
	const hub = "mode = \"gre\"\n" + local4 + "address = [\"10.0.0.1/30\"]\n" + often + "\n[[tunnel.peer]]\nname = \"b\"\nallowed = [\"10.0.0.2/32\"]\nremote = \"203.0.113.20\"\n"
	for _, c := range []struct {
		kind
		dead, b, third netip.Addr
	}{
		{kind{"hub", hub, "mode = \"gre\"\n" + over4 + inner4, ip4A, ip4B, 24, nil}, netip.MustParseAddr("203.0.113.19"), outerB, netip.MustParseAddr("203.0.113.21")},
		{kindGRE6.with("", often+"\n"), netip.MustParseAddr("2001:db8:ff::19"), outer6B, netip.MustParseAddr("2001:db8:ff::21")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newResolving(t)
			n.names.Set("b.example", c.dead, c.b, c.third)
			a := launchWith(t, n.a, strings.Replace(c.atA(), `remote = "`+c.b.String()+`"`, `remote = "b.example"`, 1), n.files)
			start(t, n.b, strings.Replace(c.atB(), `local = "`+c.b.String()+`"`, `local = "auto"`, 1))
			reachable(t, n.a, c.toB[0])
			a.wait(t, fmt.Sprintf(`"address": "%v", "before": "%v", "why": "does not answer"`, c.b, c.dead))
			if strings.Contains(a.log.String(), "does not resolve") {
				t.Error("the name was said not to resolve before it was looked up")
			}

			bits := 24
			if c.b.Is6() {
				bits = 64
			}
			must(t, n.b.DelAddr("vb", netip.PrefixFrom(c.b, bits)))
			must(t, n.b.AddAddr("vb", netip.PrefixFrom(c.third, bits)))
			reachable(t, n.a, c.toB[0])
			_, s := a.status(t)
			state, trouble := s.State, s.LastError
			if len(s.Peers) > 0 {
				state, trouble = s.Peers[0].State, s.Peers[0].LastError
			}
			if state.Remote != c.third.String() || trouble == nil || !strings.Contains(trouble.What, "does not answer: the next address of b.example, "+c.third.String()+", is used now") {
				t.Errorf("%+v, %+v", state, trouble)
			}
		})
	}
}

// It is known that a name does not resolve when its first look-up has ended.
func TestFirstLookUp(t *testing.T) {
	t.Parallel()
	n := newResolving(t)
	for config, name := range map[string]string{
		strings.Replace(plainA(), `remote = "203.0.113.20"`, `remote = "b.example"`, 1):                 "b.example",
		"[[tunnel]]\nname = \"six0\"\nmode = \"isatap\"\nrouters = [\"r.example\"]\nlocal = \"auto\"\n": "r.example",
	} {
		a := launchWith(t, n.a, config, n.files)
		a.wait(t, name+": the name does not resolve")
		log := a.log.String()
		first := strings.Index(log, "the first look-up of the name "+name)
		if first < 0 || first > strings.Index(log, "does not resolve") {
			t.Errorf("log:\n%s", log)
		}
		a.end(t, syscall.SIGTERM)
	}
}
