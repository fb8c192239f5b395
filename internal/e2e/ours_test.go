package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/rig"
)

// waitsFor waits until a tunnel waits for this.
func (d *daemon) waitsFor(t *testing.T, text string) {
	t.Helper()
	eventually(t, "it waits for "+text, func() error {
		all, err := client.Status(t.Context(), d.socket)
		if err != nil { // not yet
			return err
		}
		state := all.Tunnels[0].State
		if peers := all.Tunnels[0].Peers; len(peers) > 0 {
			state = peers[0].State
		}
		if state.Phase != api.Waiting || !strings.Contains(state.Detail, text) {
			return fmt.Errorf("%+v", state)
		}
		return nil
	})
}

const itself = "is an address of this host itself"

// A remote address that becomes an address of this host is refused while it is one: the
// tunnel would receive its own packets as the peer's.
func TestRemoteBecomesOurs(t *testing.T) {
	const hub = "mode = \"6in4\"\n" + local4 + "address = [\"fc00::%[1]d/64\"]\n[[tunnel.peer]]\nname = \"b\"\nallowed = [\"fc00::2/128\"]\nremote = \"203.0.113.20\"\n"
	rd := "mode = \"6rd\"\nprefix = \"2001:db8::/32\"\nborder_relay = \"203.0.113.20\"\naddress = [\"2001:db8:cb00:71%[3]s::1/32\"]\n" + local4
	br := "mode = \"6rd\"\nrole = \"br\"\nprefix = \"2001:db8::/32\"\naddress = [\"2001:db8:cb00:71%[3]s::1/32\"]\n" + local4
	isatap := kindISATAP
	isatap.a, isatap.b = strings.Replace(kindISATAP.b, "113.10", "113.20", 1), strings.ReplaceAll(kindISATAP.a, "203.0.113.10", "203.0.113.20")
	for _, k := range []kind{
		kindGRE.with(", local auto", ""), kindGRE, kindGRE6, kindStack,
		{"hub", hub, "mode = \"6in4\"\n" + over4 + inner6, ip6A, ip6B, 20, nil},
		{"6rd", rd, br, kind6rd.toA, kind6rd.toB, 20, nil},
		isatap,
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			config := k.atA()
			if strings.Contains(k.name, "auto") {
				config = strings.Replace(config, `local = "203.0.113.10"`, `local = "auto"`, 1)
			}
			a := launch(t, h.a, config)
			start(t, h.b, k.atB())
			reachable(t, h.a, k.toB[0])
			ours := netip.PrefixFrom(outerB, 32)
			if strings.Contains(k.a, "remote = \"2001:db8:ff:") {
				ours = netip.PrefixFrom(outer6B, 128)
			}
			must(t, h.a.AddAddr("lo", ours))
			a.waitsFor(t, itself)
			must(t, h.a.DelAddr("lo", ours))
			reachable(t, h.a, k.toB[0])
			if _, s := a.status(t); s.State.PathMTU != 1500 && len(s.Peers) == 0 {
				t.Errorf("path MTU %d", s.State.PathMTU)
			}
		})
	}
}

// A name that resolves to one of our own addresses is refused, also if packets would be
// sent from another address of ours. If the name has an address of the other host as well,
// that one is used.
func TestNameIsOurs(t *testing.T) {
	t.Parallel()
	n := newResolving(t)
	second := netip.MustParseAddr("203.0.113.11")
	must(t, n.a.AddAddr("va", netip.PrefixFrom(second, 24)))
	start(t, n.b, plainB())
	a := launchWith(t, n.a, strings.Replace(plainA(often), `remote = "203.0.113.20"`, `remote = "b.example"`, 1), n.files)
	n.names.Set("b.example", second)
	a.waitsFor(t, second.String()+" "+itself)
	if _, s := a.status(t); s.Out.Packets+s.In.Packets != 0 {
		t.Errorf("%+v", s)
	}
	n.names.Set("b.example", outerA, outerB)
	reachable(t, n.a, in6B)
}

// Both ends of a tunnel may be on one host: with different outer addresses, and interfaces
// in different namespaces, there is no loop.
func TestBothEndsOnOneHost(t *testing.T) {
	t.Parallel()
	host, inside := newNamespace(t, "host"), newNamespace(t, "inside")
	end := func(name, local, remote, inner, more string) string {
		return fmt.Sprintf("[[tunnel]]\nname = %q\nmode = \"gre\"\nlocal = %q\nremote = %q\naddress = [%q]\n%s\n", name, local, remote, inner, more)
	}
	start(t, host, end("six0", "127.0.0.1", "127.0.0.2", "10.0.0.1/30", "")+
		end("six1", "127.0.0.2", "127.0.0.1", "10.0.0.2/30", fmt.Sprintf("netns = %q", inside.Path())))
	reachable(t, host, inB)
	pings(t, inside, inA, rig.PingOptions{})

	// In the same namespace they would forward packets to each other for ever.
	other := newNamespace(t, "other")
	d := launch(t, other, end("six0", "127.0.0.1", "127.0.0.2", "10.0.0.1/32", "")+end("six1", "127.0.0.2", "127.0.0.1", "10.0.0.2/32", ""))
	d.waitsFor(t, itself)
}
