package ayiya

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/internal/vectors"
	"sixfour/transport"
)

// Any datagrams, at a server whose client they may be from and at a client: signed with the
// right password, because otherwise nearly all would be refused at once.
func FuzzDatagrams(f *testing.F) {
	for name, b := range vectors.Read(f) {
		if strings.HasPrefix(name, "AYIYA-") {
			f.Add(b[28:], uint16(0))
			f.Add(append(bytes.Clone(b[28:]), b[28:]...), uint16(len(b)-28))
		}
	}
	c := newCrowd(f, 2, 1, 100)
	port, err := listen(Config{}, transport.Options{}, quick)
	if err == nil {
		f.Fatal("a port without an address is opened")
	}
	port = &Port{udp: c.shards[0].port, tx: c.shards[0].tx}
	s := newPeer(port, transport.SessionPeer{Remote: outerOf(1).From, Settings: settings(1, func(s *Settings) {
		s.Client, s.Server = endpoint(0).Client, netip.Addr{}
	})})
	f.Fuzz(func(t *testing.T, b []byte, each uint16) {
		now := time.Now()
		o := outerOf(1)
		c.forget()
		for data := b; len(data) > 0; {
			n := len(data)
			if each > 0 {
				n = min(n, int(each))
			}
			part := data[:n:n]
			if m, err := ayiya.Parse(part); err == nil && m.Hash == s.key.Hash() && len(m.Identity) == ayiya.IdentityLen {
				ayiya.Sign(part, &ayiya.Header{Op: m.Op, Next: m.Next, Epoch: ayiya.Epoch(now), Identity: endpoint(1).Client.As16()}, &s.key)
			}
			data = data[n:]
			c.arrived(c.shards[0], part, &o, now)
		}
		s.recent = ayiya.Recent{}
		s.paused = false
		front := header.HeadersLen(o.From.Addr())
		whole := append(make([]byte, front), b...)
		m := transport.Meta{Outer: o, Size: len(whole)}
		if int(each) < len(b) {
			m.Each = int(each)
		}
		port.peers.Store(&map[netip.AddrPort]*peer{o.From: s})
		size, length := port.open(whole, &m, now)
		if size > len(whole) || size > 0 && (size <= front || length > size-front) {
			t.Fatalf("%d bytes, each %d, of %d", size, length, len(whole))
		}
	})
}
