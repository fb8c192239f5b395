package wireguard_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"sixfour/transport"
	"sixfour/transport/wireguard"
)

// foreign is a device of wireguard-go with its own socket, which listens at all addresses.
type foreign struct {
	tun  *tuntest.ChannelTUN
	dev  *device.Device
	port uint16
	key  wireguard.Secret
}

// newForeign starts a device. Lines are its settings, in the language of wg(8).
func newForeign(t testing.TB, lines string) *foreign {
	t.Helper()
	f := &foreign{tun: tuntest.NewChannelTUN(), key: wireguard.NewPrivateKey()}
	quiet := func(string, ...any) {}
	f.dev = device.NewDevice(f.tun.TUN(), conn.NewStdNetBind(), &device.Logger{Verbosef: quiet, Errorf: quiet})
	t.Cleanup(f.dev.Close)
	must(t, f.dev.IpcSet(fmt.Sprintf("private_key=%x\n%s", [32]byte(f.key), lines)))
	must(t, f.dev.Up())
	answer, err := f.dev.IpcGet()
	must(t, err)
	f.port = uint16(listenPort(answer))
	return f
}

// listenPort returns the port in an answer of a device.
func listenPort(answer string) (port int) {
	for line := range strings.Lines(answer) {
		_, _ = fmt.Sscanf(line, "listen_port=%d", &port)
	}
	return port
}

func (f *foreign) next(t testing.TB) []byte {
	t.Helper()
	select {
	case b := <-f.tun.Inbound:
		return b
	case <-time.After(soon):
		t.Fatal("the foreign peer has received no packet")
		return nil
	}
}

// WireGuard by others is a peer, whichever end begins, also with a preshared key.
func TestForeignPeer(t *testing.T) {
	for _, c := range []struct {
		name   string
		psk    wireguard.Secret
		begins bool // this port
	}{
		{"we connect", wireguard.Secret{}, true},
		{"they connect", wireguard.Secret{}, false},
		{"preshared key", wireguard.NewPrivateKey(), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := open(t, "127.0.0.1:0")
			public := e.PublicKey()
			lines := fmt.Sprintf("public_key=%x\npreshared_key=%x\nallowed_ip=::/0\nallowed_ip=0.0.0.0/0\n", public[:], [32]byte(c.psk))
			if !c.begins {
				lines += fmt.Sprintf("endpoint=%v\n", e.Local())
			}
			f := newForeign(t, lines)
			at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), f.port)
			remote := at
			if !c.begins {
				remote = netip.AddrPort{}
			}
			must(t, e.SetPeers([]transport.SessionPeer{{ID: "f", Remote: remote, Settings: &wireguard.Settings{PublicKey: f.key.Public(), PresharedKey: c.psk}}}))
			there, back := inner("2001:db8::a", "2001:db8::b", []byte("there")), inner("2001:db8::b", "2001:db8::a", []byte("back"))
			if !c.begins {
				f.tun.Outbound <- back
			}
			if got := e.connected(t, "f"); got != at {
				t.Fatalf("the peer is at %v, want %v", got, at)
			}
			if c.begins {
				must(t, e.send(at, there))
				if got := f.next(t); !bytes.Equal(got, there) {
					t.Fatalf("the foreign peer received % x", got)
				}
				f.tun.Outbound <- back
			}
			if o, got := e.next(t); !bytes.Equal(got, back) || o.From != at {
				t.Fatalf("received % x from %v", got, o.From)
			}
			must(t, e.send(at, there))
			if got := f.next(t); !bytes.Equal(got, there) {
				t.Fatalf("the foreign peer received % x", got)
			}
		})
	}
}
