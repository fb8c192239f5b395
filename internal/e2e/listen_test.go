package e2e

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// shared is one listening host, and hosts that share the addresses of a NAT:
//
//	a 203.0.113.10/24 va ─── na       n  nb ─── vb b 192.168.9.2/24
//	              203.0.113.20, .30      nc ─── vc c 192.168.8.2/24
type shared struct {
	a, n, b, c *rig.Namespace
}

func newShared(t *testing.T) shared {
	t.Helper()
	s := shared{newNamespace(t, "a"), newNamespace(t, "n"), newNamespace(t, "b"), newNamespace(t, "c")}
	must(t, rig.Veth(s.a, "va", s.n, "na", 1500))
	must(t, rig.Veth(s.n, "nb", s.b, "vb", 1500))
	must(t, rig.Veth(s.n, "nc", s.c, "vc", 1500))
	for _, l := range []struct {
		ns        *rig.Namespace
		dev, addr string
	}{
		{s.a, "va", "203.0.113.10/24"}, {s.n, "na", "203.0.113.20/24"}, {s.n, "na", "203.0.113.30/24"},
		{s.n, "nb", "192.168.9.1/24"}, {s.b, "vb", "192.168.9.2/24"}, {s.n, "nc", "192.168.8.1/24"}, {s.c, "vc", "192.168.8.2/24"},
	} {
		must(t, l.ns.AddAddr(l.dev, netip.MustParsePrefix(l.addr)))
		must(t, l.ns.LinkUp(l.dev))
	}
	everywhere := netip.MustParsePrefix("0.0.0.0/0")
	must(t, s.b.AddRoute(everywhere, netip.MustParseAddr("192.168.9.1"), "vb"))
	must(t, s.c.AddRoute(everywhere, netip.MustParseAddr("192.168.8.1"), "vc"))
	must(t, s.n.Forward())
	s.bind(t, "203.0.113.20:20000-29999")
	return s
}

// bind makes the NAT forget all connections, and use one of the given addresses and ports for
// new ones. What arrives and belongs to none is for the NAT itself, which drops it.
func (s shared) bind(t *testing.T, to string) {
	t.Helper()
	command(t, s.n, "nft", `
		add table ip nat
		flush table ip nat
		table ip nat {
			chain out { type nat hook postrouting priority 100; oifname "na" meta l4proto udp snat to `+to+`; }
			chain in { type filter hook input priority 0; policy drop; }
		}`)
	must(t, s.n.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer h.Close()
		return h.ConntrackTableFlush(netlink.ConntrackTable)
	}))
}

// secretFile returns the path of a file with a secret.
func secretFile(t *testing.T, secret string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(name, []byte(secret), 0o600))
	return name
}

// wgKey is a private key of WireGuard in a file.
type wgKey struct{ file, public string }

func newKey(t *testing.T) wgKey {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(t, err)
	return wgKey{secretFile(t, base64.StdEncoding.EncodeToString(k.Bytes())), base64.StdEncoding.EncodeToString(k.PublicKey().Bytes())}
}

// meetingLines returns the lines of a path in an encapsulation at the end that listens, which
// has a key, and at the other end.
func meetingLines(t *testing.T, kind string, own wgKey) (listens, arrives string) {
	t.Helper()
	if kind != "wireguard" {
		secret := secretFile(t, "a secret: "+rand.Text())
		return fmt.Sprintf("encap = %q\nlisten = true\nlocal_port = 5555\nsecret_file = %q\n", kind, secret),
			fmt.Sprintf("encap = %q\nport = 5555\nsecret_file = %q\n", kind, secret)
	}
	lines := func(own, other wgKey) string {
		return fmt.Sprintf("encap = \"wireguard\"\nprivate_key_file = %q\npublic_key = %q\n", own.file, other.public)
	}
	other := newKey(t)
	return lines(own, other) + "listen = true\nlocal_port = 5555\n", lines(other, own) + "port = 5555\n"
}

// listening and arriving are the ends of a tunnel between a and b.
func listening(path string) string {
	return "[[tunnel]]\nname = \"six0\"\nmode = \"4in6in4\"\nlocal = \"203.0.113.10\"\nlocal6 = \"fc00::1\"\nremote6 = \"fc00::2\"\naddress = [\"10.0.0.1/30\"]\nkeepalive = \"1s\"\n[[tunnel.path]]\n" + path
}

func arriving(path string) string {
	return "[[tunnel]]\nname = \"six0\"\nmode = \"4in6in4\"\nlocal = \"auto\"\nremote = \"203.0.113.10\"\nlocal6 = \"fc00::2\"\nremote6 = \"fc00::1\"\naddress = [\"10.0.0.2/30\"]\nkeepalive = \"1s\"\n[[tunnel.path]]\n" + path
}

// far waits until the peer is at an address and port out of a range.
func (d *daemon) far(t *testing.T, addr string, least, most uint16) {
	t.Helper()
	eventually(t, fmt.Sprintf("the peer is at %s, port %d to %d", addr, least, most), func() error {
		_, s := d.status(t)
		if s.State.Remote != addr || s.State.Port < least || s.State.Port > most || s.State.Phase != api.Up {
			return fmt.Errorf("it is %s at %s, port %d: %s", s.State.Phase, s.State.Remote, s.State.Port, s.State.Detail)
		}
		return nil
	})
}

// The end that listens learns where the other one is, behind a NAT, and follows it when the
// NAT gives it another port, or another address. Packets pass in both directions.
func TestListen(t *testing.T) {
	for _, kind := range []string{"fou", "gue", "wireguard"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newShared(t)
			listens, arrives := meetingLines(t, kind, newKey(t))
			if kind != "fou" {
				arrives += "local_port = 0\n"
			}
			a := start(t, s.a, listening(listens))
			_, before := a.status(t)
			if before.State.Phase != api.Waiting || !strings.Contains(before.State.Detail, "peer") {
				t.Errorf("before the peer is there: %+v", before.State)
			}
			b := start(t, s.b, arriving(arrives))
			a.far(t, "203.0.113.20", 20000, 29999)
			b.phase(t, api.Up)
			if _, at := b.status(t); kind != "fou" && at.State.LocalPort < 49152 {
				t.Errorf("any local port: %+v", at.State)
			}
			pings(t, s.b, inA, rig.PingOptions{})
			pings(t, s.a, inB, rig.PingOptions{Size: 1000})

			s.bind(t, "203.0.113.20:30000-39999") // the NAT has lost its table
			a.far(t, "203.0.113.20", 30000, 39999)
			reachable(t, s.a, inB)
			s.bind(t, "203.0.113.30:40000-49999") // the uplink has another address
			a.far(t, "203.0.113.30", 40000, 49999)
			reachable(t, s.a, inB)
			pings(t, s.b, inA, rig.PingOptions{})

			a.end(t, syscall.SIGTERM) // the address that was learnt is lost
			a = start(t, s.a, listening(listens))
			a.far(t, "203.0.113.30", 40000, 49999)
			reachable(t, s.a, inB)
			transfer(t, s.b, s.a, inA, 4<<20)
		})
	}
}

// Packets from elsewhere move nothing, though they are in the right form: neither data nor
// messages with another secret.
func TestListenStrangers(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	listens, arrives := meetingLines(t, "fou", wgKey{})
	a := start(t, s.a, listening(listens))
	start(t, s.b, arriving(arrives))
	a.far(t, "203.0.113.20", 20000, 29999)
	_, at := a.status(t)

	_, forged := meetingLines(t, "fou", wgKey{}) // the other's name is equal, and its secret is not
	stranger := launch(t, s.c, strings.Replace(arriving(forged), "six0", "six1", 1))
	stranger.wait(t, "ready")
	inner := ip6(in6B, in6A, header.ProtoIPv4, experimental(inB, inA))
	datagram := append([]byte{0x15, 0xb3, 0x15, 0xb3, 0, byte(header.UDPLen + len(inner)), 0, 0}, inner...) // from port 5555 to 5555
	send(t, s.n, slices.Repeat([][]byte{ip4(netip.MustParseAddr("203.0.113.30"), outerA, header.UDP, datagram)}, 50)...)
	eventually(t, "a has received what strangers send", func() error {
		all, tunnel := a.status(t)
		drops := func(reason string) uint64 { return all.Stray.Drops[reason] + tunnel.In.Drops[reason] }
		if drops("foreign_source") < 50 || drops("unauthenticated") == 0 {
			return fmt.Errorf("%+v, %+v", all.Stray, tunnel.In)
		}
		return nil
	})
	eventually(t, "the stranger says that nobody answers", func() error {
		if _, tunnel := stranger.status(t); tunnel.LastError == nil || !strings.Contains(tunnel.LastError.What, "secret_file") {
			return fmt.Errorf("%+v", tunnel.LastError)
		}
		return nil
	})
	pings(t, s.a, inB, rig.PingOptions{Count: 10})
	if _, now := a.status(t); now.State.Remote != at.State.Remote || now.State.Port != at.State.Port {
		t.Errorf("the peer was at %s, port %d, and is at %s, port %d", at.State.Remote, at.State.Port, now.State.Remote, now.State.Port)
	}
}

// Several peers behind one NAT arrive at one port of a hub, and are told apart.
func TestListenHub(t *testing.T) {
	for _, kind := range []string{"fou", "wireguard"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newShared(t)
			hub := "[[tunnel]]\nname = \"six0\"\nmode = \"4in4\"\nlocal = \"203.0.113.10\"\naddress = [\"10.0.0.1/24\"]\nkeepalive = \"1s\"\n"
			key := newKey(t)
			for i, n := range []*rig.Namespace{s.b, s.c} {
				listens, arrives := meetingLines(t, kind, key)
				hub += fmt.Sprintf("[[tunnel.peer]]\nname = %q\nallowed = [\"10.0.0.%d/32\"]\n[[tunnel.peer.path]]\n%s", n.Name(), i+2, listens)
				launch(t, n, fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"4in4\"\nlocal = \"auto\"\nremote = \"203.0.113.10\"\naddress = [\"10.0.0.%d/24\"]\nkeepalive = \"1s\"\n[[tunnel.path]]\n%s", i+2, arrives))
			}
			a := start(t, s.a, hub)
			for i, n := range []*rig.Namespace{s.b, s.c} {
				reachable(t, n, inA)
				reachable(t, s.a, netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 2)}))
			}
			s.bind(t, "203.0.113.30:40000-49999")
			eventually(t, "both have moved", func() error {
				_, status := a.status(t)
				if p := status.Peers; len(p) != 2 || p[0].State.Remote != "203.0.113.30" || p[1].State.Remote != p[0].State.Remote || p[0].State.Port == p[1].State.Port {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			for i, n := range []*rig.Namespace{s.b, s.c} {
				reachable(t, n, inA)
				reachable(t, s.a, netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 2)}))
			}
		})
	}
}

// A reload that changes the addresses behind a peer in WireGuard changes what its connection
// carries.
func TestReloadBehindConnection(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	listens, arrives := meetingLines(t, "wireguard", newKey(t))
	hub := func(allowed string) string {
		return "[[tunnel]]\nname = \"six0\"\nmode = \"4in4\"\nlocal = \"203.0.113.10\"\naddress = [\"10.0.0.1/24\"]\nkeepalive = \"1s\"\n[[tunnel.peer]]\nname = \"b\"\nallowed = [" + allowed + "]\n[[tunnel.peer.path]]\n" + listens
	}
	launch(t, s.b, "[[tunnel]]\nname = \"six0\"\nmode = \"4in4\"\nlocal = \"auto\"\nremote = \"203.0.113.10\"\naddress = [\"10.0.0.2/24\", \"10.0.0.7/32\"]\nkeepalive = \"1s\"\n[[tunnel.path]]\n"+arrives)
	a := start(t, s.a, hub(`"10.0.0.2/32"`))
	reachable(t, s.a, inB)
	a.mustReload(t, hub(`"10.0.0.2/32", "10.0.0.7/32"`))
	reachable(t, s.a, netip.MustParseAddr("10.0.0.7"))
	reachable(t, s.a, inB)
}
