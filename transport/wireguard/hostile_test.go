package wireguard_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/transport"
	"sixfour/transport/wireguard"
)

// A datagram that arrives twice, or again later from another address, is received once, and
// moves nothing.
func TestReplay(t *testing.T) {
	var mu sync.Mutex
	var recorded [][]byte
	a, b, r := relayed(t, func(direction int, d []byte) [][]byte {
		if direction == 1 {
			return [][]byte{d}
		}
		mu.Lock()
		defer mu.Unlock()
		recorded = append(recorded, bytes.Clone(d))
		return [][]byte{d, d}
	})
	at := b.connected(t, "a")
	for i := range 20 {
		want := inner("192.0.2.1", "192.0.2.2", fmt.Appendf(nil, "packet %d", i))
		must(t, a.send(r.front(), want))
		if _, got := b.next(t); !bytes.Equal(got, want) {
			t.Fatalf("% x, want % x", got, want)
		}
	}
	stranger, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(b.Local()))
	must(t, err)
	defer stranger.Close()
	mu.Lock()
	for _, d := range recorded {
		_, err := stranger.Write(d)
		must(t, err)
	}
	mu.Unlock()
	exchange(t, a, b, r.front(), at) // from the same address, and nothing else in between
	b.nothing(t)
	if len(b.events) > 0 {
		t.Errorf("Connected%v", <-b.events)
	}
}

// With a wrong key, on any side, there is no session and nothing passes.
func TestWrongKey(t *testing.T) {
	stranger := wireguard.NewPrivateKey().Public()
	for _, c := range []struct {
		name   string
		a, b   wireguard.PublicKey // whom b takes for a, and a for b; the zero value: right
		secret wireguard.Secret    // the preshared key of a
	}{
		{name: "another key of a", a: stranger},
		{name: "another key of b", b: stranger},
		{name: "a preshared key", secret: wireguard.NewPrivateKey()},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
			arrived := make(chan struct{}, 1000)
			r := newRelay(t, b.Local(), func(direction int, d []byte) [][]byte {
				if direction == 0 {
					arrived <- struct{}{}
				}
				return [][]byte{d}
			})
			ofA, ofB := peer("a", a, netip.AddrPort{}, wireguard.Settings{}), peer("b", b, r.front(), wireguard.Settings{PresharedKey: c.secret})
			if (c.a != wireguard.PublicKey{}) {
				ofA.Settings = &wireguard.Settings{PublicKey: c.a}
			}
			if (c.b != wireguard.PublicKey{}) {
				ofB.Settings = &wireguard.Settings{PublicKey: c.b}
			}
			must(t, b.SetPeers([]transport.SessionPeer{ofA}))
			must(t, a.SetPeers([]transport.SessionPeer{ofB}))
			for range 2 { // the attempt, and the next one, 5 s later
				<-arrived
			}
			if err := a.send(r.front(), inner("192.0.2.1", "192.0.2.2", nil)); !errors.Is(err, unix.ENOTCONN) {
				t.Errorf("send: %v", err)
			}
			a.nothing(t)
			b.nothing(t)
			if len(a.events)+len(b.events) > 0 {
				t.Error("Connected was called")
			}
		})
	}
}

// What strangers send, and what is changed on the way, is not received, and keeps nothing
// from being received.
func TestHostile(t *testing.T) {
	var mu sync.Mutex
	var recorded [][]byte
	a, b, r := relayed(t, func(_ int, d []byte) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		recorded = append(recorded, bytes.Clone(d))
		return [][]byte{d}
	})
	at := b.connected(t, "a")
	exchange(t, a, b, r.front(), at)
	stranger, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(b.Local()))
	must(t, err)
	defer stranger.Close()
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		d := make([]byte, n)
		for i := range d {
			d[i] = byte(random.Uint32())
		}
		return d
	}
	sent := 0
	send := func(d []byte) {
		_, _ = stranger.Write(d)
		if sent++; sent%50 == 0 { // the socket has room for so many
			exchange(t, a, b, r.front(), at)
		}
	}
	mu.Lock()
	known := recorded[:8]
	mu.Unlock()
	for _, d := range known { // changed in each byte, cut off, longer
		for i := range d {
			changed := bytes.Clone(d)
			changed[i] ^= 1 << random.UintN(8)
			send(changed)
			send(d[:i])
		}
		send(append(bytes.Clone(d), 0))
	}
	for kind := range uint32(6) {
		for _, n := range []int{4, 15, 31, 32, 33, 64, 92, 148, 1400, 1500, 65000, 65507} {
			d := noise(n)
			binary.LittleEndian.PutUint32(d, kind)
			send(d)
		}
	}
	for range 500 {
		send(noise(random.IntN(200)))
	}
	exchange(t, a, b, r.front(), at)
	b.nothing(t)
	if len(b.events) > 0 {
		t.Errorf("Connected%v", <-b.events)
	}
}
