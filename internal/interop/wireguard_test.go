//go:build interop

package interop

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/transport"
	"sixfour/transport/wireguard"
)

// TestWireGuard: the kernel's WireGuard is a peer of a port. Either end begins, over IPv4 and
// IPv6, with a preshared key, and with the largest packets of both. Then our end moves.
//
//	port, answers pings to 192.0.2.2 ── tap0 ──┼── eth0 ── wg0 192.0.2.1
func TestWireGuard(t *testing.T) {
	for _, c := range []struct {
		name, ours, theirs string
		begins             bool // our end
	}{
		{"IPv4, we connect", ours, theirs, true},
		{"IPv4, the kernel connects", ours, theirs, false},
		{"IPv6, we connect", ours6, theirs6, true},
		{"IPv6, the kernel connects", ours6, theirs6, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			key, theirKey, psk := wireguard.NewPrivateKey(), wireguard.NewPrivateKey(), wireguard.NewPrivateKey()
			at := netip.AddrPortFrom(netip.MustParseAddr(c.theirs), 51820)
			mtu := wireguard.MaxInner(1500, at.Addr())
			first := netip.AddrPortFrom(netip.MustParseAddr(c.ours), 51821)
			endpoint := ""
			if !c.begins {
				endpoint = fmt.Sprintf(" endpoint %v persistent-keepalive 1", first)
			}
			run(t, fmt.Sprintf(`set -e
				ip link add wg0 type wireguard
				echo %s >/run/key; echo %s >/run/psk
				wg set wg0 private-key /run/key listen-port %d peer %v preshared-key /run/psk allowed-ips 192.0.2.2/32%s
				ip addr add 192.0.2.1/24 dev wg0; ip link set wg0 mtu %d up`,
				base64.StdEncoding.EncodeToString(theirKey[:]), base64.StdEncoding.EncodeToString(psk[:]), at.Port(), key.Public(), endpoint, mtu))
			t.Cleanup(func() { run(t, "ip link del wg0") })

			settings := &wireguard.Settings{PublicKey: theirKey.Public(), PresharedKey: psk}
			var remote netip.AddrPort
			if c.begins {
				remote = at
			}
			p := wireguardPort(t, key, first, remote, settings, at)
			p.exchange(t, mtu)
			p.Close()

			// The same end, at another port: the kernel follows it.
			p = wireguardPort(t, key, netip.AddrPortFrom(first.Addr(), 51822), at, settings, at)
			p.exchange(t, mtu)
			out, err := lab.vm.Run(t.Context(), "wg show wg0 endpoints")
			if err != nil || !strings.Contains(out, p.Local().String()) {
				t.Errorf("endpoints in the kernel: %s %v, want %v", out, err, p.Local())
			}
			report(t, "%v", strings.TrimSpace(out))
		})
	}
}

// wireguardEnd is a port whose inner address answers pings.
type wireguardEnd struct {
	*wireguard.Port
	to      netip.AddrPort // the peer
	replies chan int       // lengths
}

func wireguardPort(t *testing.T, key wireguard.Secret, local, remote netip.AddrPort, s *wireguard.Settings, want netip.AddrPort) *wireguardEnd {
	t.Helper()
	up := make(chan netip.AddrPort, 100)
	e := &wireguardEnd{to: want, replies: make(chan int, 100)}
	err := lab.ns.Do(func() (err error) {
		e.Port, err = wireguard.Listen(wireguard.Config{
			PrivateKey: key, Local: local, Connected: func(_ any, at netip.AddrPort, _ error) { up <- at },
		}, transport.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if err := e.SetPeers([]transport.SessionPeer{{Remote: remote, Settings: s}}); err != nil {
		t.Fatal(err)
	}
	go e.answer(t)
	select {
	case at := <-up:
		if at != want {
			t.Fatalf("the kernel is at %v, want %v", at, want)
		}
	case <-time.After(time.Minute):
		t.Fatal("no session")
	}
	return e
}

// answer answers pings.
func (e *wireguardEnd) answer(t *testing.T) {
	tx, err := e.Sender(transport.Options{})
	if err != nil {
		t.Error(err)
		return
	}
	buf, meta := [][]byte{make([]byte, 2000)}, make([]transport.Meta, 1)
	for {
		if _, err := e.Receive(buf, meta); err != nil {
			return
		}
		in := buf[0][header.HeadersLen(e.to.Addr()):meta[0].Size]
		ip, why := header.ParseIPv4(in)
		if why != 0 || ip.Protocol() != header.ICMP {
			continue
		}
		switch echo := ip.Payload(); echo[0] {
		case 8:
			if err := tx.SendOne(e.packet(ping(ip.Dst(), ip.Src(), 0, echo[4:]))); err != nil {
				t.Error(err)
			}
		case 0:
			e.replies <- len(in)
		}
	}
}

// packet puts the headers of the port before an inner packet.
func (e *wireguardEnd) packet(in []byte) []byte {
	n := header.HeadersLen(e.to.Addr())
	b := make([]byte, n+len(in))
	copy(b[n:], in)
	header.PutHeaders(b, &header.Outer{From: e.Local(), At: e.to, TTL: 64})
	return b
}

// ping makes an ICMP message of the type echo or echo reply.
func ping(from, to netip.Addr, kind byte, rest []byte) []byte {
	b := make([]byte, header.IPv4Len+4+len(rest))
	ip := header.IPv4(b)
	ip[0], ip[8], ip[9] = 0x45, 64, header.ICMP
	binary.BigEndian.PutUint16(ip[2:], uint16(len(b)))
	src, dst := from.As4(), to.As4()
	copy(ip.Source(), src[:])
	copy(ip.Dest(), dst[:])
	ip.SetChecksum()
	echo := ip.Payload()
	echo[0] = kind
	copy(echo[4:], rest)
	binary.BigEndian.PutUint16(echo[2:], ^header.Sum(echo, 0))
	return b
}

// exchange sends pings in both directions, the largest of which fill packets of the MTU.
func (e *wireguardEnd) exchange(t *testing.T, mtu int) {
	t.Helper()
	tx, err := e.Sender(transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, size := range []int{29, 100, 1200, mtu - 17, mtu - 1, mtu} {
		if err := tx.SendOne(e.packet(ping(ours, theirs, 8, make([]byte, size-header.IPv4Len-4)))); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-e.replies:
			if got != size {
				t.Fatalf("the kernel answered %d bytes with %d", size, got)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no answer to %d bytes", size)
		}
		r, err := kernelEnd{lab.ns}.ping(t.Context(), ours, rig.PingOptions{Count: 2, Size: size - header.IPv4Len - 8, Timeout: patience})
		if err != nil || r.Received != 2 {
			t.Fatalf("pings of %d bytes by the kernel: %+v, %v", size, r, err)
		}
	}
	report(t, "pings of 29 to %d bytes in both directions", mtu)
}
