package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"sixfour/encap/header"
	"sixfour/internal/capture"
	"sixfour/internal/control/client"
	"sixfour/internal/decode"
	"sixfour/internal/pcapng"
	"sixfour/internal/rig"
)

// recording is a capture that is read while it runs.
type recording struct {
	end  context.CancelFunc
	done chan struct{}

	mu  sync.Mutex
	raw bytes.Buffer // whole blocks
	err error        // why it ended
}

// record captures at a daemon until the test ends.
func (d *daemon) record(t *testing.T, r capture.Request) *recording {
	t.Helper()
	c := client.New(d.socket)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := c.Capture(ctx, r)
	must(t, err)
	rec := &recording{end: cancel, done: make(chan struct{})}
	begun := make(chan struct{})
	go func() {
		defer close(rec.done)
		defer stream.Close()
		blocks := pcapng.NewBlocks(stream)
		for n := 0; ; n++ {
			b, err := blocks.Next()
			rec.mu.Lock()
			if err != nil {
				rec.err = err
				rec.mu.Unlock()
				return
			}
			rec.raw.Write(b.Raw)
			rec.mu.Unlock()
			if n == 0 {
				close(begun)
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-rec.done
	})
	<-begun // the tap is there
	return rec
}

// seen is a captured packet and where.
type seen struct {
	pcapng.Packet
	at string // "inner" or "outer"
}

// packets returns the packets that have arrived so far.
func (r *recording) packets(t *testing.T) (all []seen) {
	t.Helper()
	r.mu.Lock()
	raw := bytes.Clone(r.raw.Bytes())
	r.mu.Unlock()
	in, err := decode.NewReader(bytes.NewReader(raw))
	must(t, err)
	last := time.Time{}
	for {
		p, i, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		p.Data = bytes.Clone(p.Data)
		if p.Time.Before(last) {
			t.Errorf("packet %d is of %v, after one of %v", len(all), p.Time, last)
		}
		last = p.Time
		all = append(all, seen{p, i.Name[len("six0 "):]})
	}
}

// find waits until a packet is captured.
func (r *recording) find(t *testing.T, what string, is func(seen) bool) (found seen) {
	t.Helper()
	eventually(t, what, func() error {
		all := r.packets(t)
		for _, p := range all {
			if is(p) {
				found = p
				return nil
			}
		}
		return fmt.Errorf("none of %d packets", len(all))
	})
	return found
}

// counterpart returns the packet that belongs to p, such as the outer one to the inner one; ok is
// false if there is none.
func (r *recording) counterpart(t *testing.T, p seen) (o seen, ok bool) {
	t.Helper()
	for _, o := range r.packets(t) {
		if o.ID == p.ID && o.at != p.at {
			return o, true
		}
	}
	return o, false
}

func (s seen) comment() string {
	if len(s.Comments) == 0 {
		return ""
	}
	return s.Comments[0]
}

func isICMP(b []byte, typ byte, src netip.Addr) bool {
	ip := header.IPv4(b)
	return len(b) > header.IPv4Len && header.Version(b) == 4 && ip.Protocol() == header.ICMP && ip.Src() == src && b[header.IPv4Len] == typ
}

// At both ends each packet is captured as it is inside and as it is on the wire, linked and
// with its direction. A packet that is not carried has the reason, with the word of the
// counters.
func TestCapture(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	a, b := start(t, h.a, configA()), start(t, h.b, configB())
	reachable(t, h.a, inB)
	atA, atB := a.record(t, capture.Request{Tunnel: "six0"}), b.record(t, capture.Request{Tunnel: "six0"})
	onlyDrops := a.record(t, capture.Request{Tunnel: "six0", Filter: "src 198.51.100.9 or (ip proto 41 and src 203.0.113.20 and ip[26] = 4)", Sides: capture.Outer})
	_, before := a.status(t)
	pings(t, h.a, inB, rig.PingOptions{Count: 3, Size: 1000})
	// A forged packet from the peer's address with a loopback source, and one from an
	// unknown address.
	martian := ip4(netip.MustParseAddr("127.0.0.1"), inA, 253, []byte("martian"))
	tunnelled := ip6(in6B, in6A, header.ProtoIPv4, martian)
	send(t, h.b, ip4(outerB, outerA, header.ProtoIPv6, tunnelled), ip4(netip.MustParseAddr("198.51.100.9"), outerA, header.ProtoIPv6, tunnelled))

	for _, c := range []struct {
		name  string
		rec   *recording
		typ   byte
		src   netip.Addr
		outer netip.Addr
		way   pcapng.Direction
	}{
		{"a sends requests", atA, 8, inA, outerA, pcapng.Outbound},
		{"a gets answers", atA, 0, inB, outerB, pcapng.Inbound},
		{"b gets requests", atB, 8, inA, outerA, pcapng.Inbound},
		{"b sends answers", atB, 0, inB, outerB, pcapng.Outbound},
	} {
		inner := c.rec.find(t, c.name, func(p seen) bool { return p.at == "inner" && isICMP(p.Data, c.typ, c.src) })
		outer, ok := c.rec.counterpart(t, inner)
		if !ok || inner.Direction != c.way || outer.Direction != c.way || inner.comment() != "" {
			t.Errorf("%s: %+v and %+v", c.name, inner.Packet, outer.Packet)
			continue
		}
		const around = header.IPv4Len + header.IPv6Len
		if header.IPv4(outer.Data).Src() != c.outer || len(outer.Data) != len(inner.Data)+around || outer.Data[9] != header.ProtoIPv6 || !bytes.Equal(outer.Data[around:], inner.Data) {
			t.Errorf("%s: outer % x of inner % x", c.name, outer.Data[:60], inner.Data[:20])
		}
	}
	dropped := atA.find(t, "the martian", func(p seen) bool { return bytes.HasSuffix(p.Data, []byte("martian")) && p.comment() != "" })
	if want := "dropped: martian: an inner address is not valid"; !bytes.HasPrefix([]byte(dropped.comment()), []byte(want)) || dropped.Direction != pcapng.Inbound {
		t.Errorf("%q, %v", dropped.comment(), dropped.Direction)
	}
	stray := atA.find(t, "the stray", func(p seen) bool {
		return len(p.Data) > header.IPv4Len && header.IPv4(p.Data).Src() == netip.MustParseAddr("198.51.100.9")
	})
	if _, ok := atA.counterpart(t, stray); ok || stray.at != "outer" || !bytes.HasPrefix([]byte(stray.comment()), []byte("dropped: foreign_source: ")) {
		t.Errorf("%v %q", stray.at, stray.comment())
	}
	eventually(t, "the filter chooses", func() error {
		n := 0
		for _, p := range onlyDrops.packets(t) {
			if p.at != "outer" {
				t.Fatalf("%+v", p)
			}
			n++
		}
		if n < 2 {
			return fmt.Errorf("%d packets", n)
		}
		return nil
	})
	a.compareCounters(t, atA, before.In.Drops)
	atA.stop(t, a)
}

// compareCounters compares the drops in a capture with the counters.
func (d *daemon) compareCounters(t *testing.T, rec *recording, before map[string]uint64) {
	t.Helper()
	words := make(map[string]uint64)
	ids := make(map[uint64]bool)
	for _, p := range rec.packets(t) {
		var word string
		if _, err := fmt.Sscanf(p.comment(), "dropped: %s", &word); err == nil && !ids[p.ID] {
			ids[p.ID] = true
			words[word[:len(word)-1]]++
		}
	}
	s, tun := d.status(t)
	counted := make(map[string]uint64)
	for _, drops := range []map[string]uint64{tun.In.Drops, tun.Out.Drops, s.Stray.Drops} {
		for word, n := range drops {
			if n > before[word] {
				counted[word] += n - before[word]
			}
		}
	}
	if fmt.Sprint(words) != fmt.Sprint(counted) {
		t.Errorf("the capture has %v, the counters %v", words, counted)
	}
}

// stop ends a capture by ending the daemon, which reports that, and reads the file with
// another library.
func (r *recording) stop(t *testing.T, d *daemon) {
	t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	d.exit(t)
	<-r.done
	if r.err == nil || errors.Is(r.err, io.EOF) {
		t.Errorf("the capture ends with %v, though the daemon is gone", r.err)
	}
	in, err := pcapgo.NewNgReader(bytes.NewReader(r.raw.Bytes()), pcapgo.NgReaderOptions{WantMixedLinkType: true, ErrorOnMismatchingLinkType: true})
	must(t, err)
	packets := 0
	for {
		data, info, err := in.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		packets++
		p := gopacket.NewPacket(data, layers.LinkTypeRaw, gopacket.NoCopy)
		if p.NetworkLayer() == nil || info.Length != len(data) || time.Since(info.Timestamp).Abs() > time.Hour {
			t.Errorf("%+v: %v", info, p)
		}
	}
	if packets != len(r.packets(t)) || in.NInterfaces() != 2 {
		t.Errorf("%d packets at %d interfaces, want %d at 2", packets, in.NInterfaces(), len(r.packets(t)))
	}
	for i, name := range []string{"six0 inner", "six0 outer"} {
		if got, err := in.Interface(i); err != nil || got.Name != name || got.LinkType != layers.LinkType(pcapng.LinkRawDLT) {
			t.Errorf("interface %d: %+v, %v", i, got, err)
		}
	}
}
