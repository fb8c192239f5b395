package connectip

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sixfour/transport/queue"

	"github.com/quic-go/quic-go/quicvarint"
)

// vectors reads testdata/vectors.md.
func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.md")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for _, m := range regexp.MustCompile("\\*\\*(CIP-\\d)\\*\\*[^\n]*\n\n```hex\n([0-9a-f\n]+)```").FindAllStringSubmatch(string(text), -1) {
		if all[m[1]], err = hex.DecodeString(strings.ReplaceAll(m[2], "\n", "")); err != nil {
			t.Fatal(err)
		}
	}
	if len(all) != 5 {
		t.Fatalf("there are %d vectors", len(all))
	}
	return all
}

// stream returns a reader of bytes.
func streamOf(b []byte) *bufio.Reader { return bufio.NewReaderSize(bytes.NewReader(b), 64) }

func prefixes(all ...string) (list []netip.Prefix) {
	for _, p := range all {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

func TestVectors(t *testing.T) {
	v := vectors(t)
	p, _, err := readCapsule(streamOf(v["CIP-1"]))
	if err != nil || p == nil || !bytes.Equal(p.B, v["CIP-1"][3:]) || p.B[0]>>4 != 6 {
		t.Errorf("CIP-1: %v, %v", p, err)
	}
	if got := capsuleOf(v["CIP-1"][3:]); !bytes.Equal(got, v["CIP-1"]) {
		t.Errorf("CIP-1: we write %x", got)
	}
	ours := prefixes("2001:db8:77:5::/64")
	for _, c := range []struct {
		name string
		want []byte // what we write
	}{
		{"CIP-2", addressCapsule(capsuleRequest, []address{{1, netip.MustParsePrefix("::/64")}})},
		{"CIP-3", addressCapsule(capsuleAssign, answer([]address{{1, netip.MustParsePrefix("::/64")}}, ours))},
		{"CIP-4", addressCapsule(capsuleAssign, answer([]address{{1, netip.MustParsePrefix("::/64")}}, nil))},
		{"CIP-5", routeCapsule(prefixes("::/0"))},
	} {
		if !bytes.Equal(c.want, v[c.name]) {
			t.Errorf("%s: we write %x", c.name, c.want)
		}
		_, control, err := readCapsule(streamOf(v[c.name]))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if control.kind == capsuleRoutes {
			routes, err := parseRoutes(control.value)
			if want := (Route{netip.MustParseAddr("::"), netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 0}); err != nil || !slices.Equal(routes, []Route{want}) {
				t.Errorf("%s: %v, %v", c.name, routes, err)
			}
		} else if all, err := parseAddresses(control.value); err != nil || len(all) != 1 || all[0].request != 1 {
			t.Errorf("%s: %v, %v", c.name, all, err)
		}
	}
}

// capsuleOf returns a DATAGRAM capsule with a packet, as a connection writes it.
func capsuleOf(pkt []byte) []byte {
	c := &conn{out: queue.NewOutbox()}
	if err := c.queue(pkt, nil, time.Now()); err != nil {
		panic(err)
	}
	var first [1]*queue.Packet
	if _, n, err := c.out.Take(first[:], len(pkt)); n != 1 || err != nil {
		panic(err)
	}
	return first[0].B
}

func TestVarint(t *testing.T) {
	for _, n := range []uint64{0, 1, 63, 64, 16383, 16384, 1<<30 - 1, 1 << 30, 1<<62 - 1} {
		b := appendVarint(nil, n)
		if want := quicvarint.Append(nil, n); !bytes.Equal(b, want) {
			t.Errorf("%d is %x, want %x", n, b, want)
		}
		if got, rest, ok := cutVarint(append(b, 7)); !ok || got != n || len(rest) != 1 {
			t.Errorf("%x is %d, %v", b, got, ok)
		}
		for i := range len(b) {
			if _, _, ok := cutVarint(b[:i]); ok {
				t.Errorf("%d of %d bytes are a number", i, len(b))
			}
		}
	}
}

// A stream in which every capsule is of another type or has another context.
func TestSkips(t *testing.T) {
	one := capsuleOf(inner(48, 1))
	var b []byte
	b = append(b, one...)
	b = appendCapsule(b, capsuleIdle, nil)
	b = appendCapsule(b, 0x1ace79ec, make([]byte, maxUnknown)) // unknown, as long as permitted
	b = appendCapsule(b, capsuleDatagram, []byte{2, 1, 2, 3})  // another context
	b = appendCapsule(b, capsuleDatagram, []byte{0x40, 2, 1})  // in two bytes
	b = appendCapsule(b, capsuleDatagram, []byte{0})           // no packet
	b = append(b, one...)
	r, packets := streamOf(b), 0
	for {
		p, control, err := readCapsule(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || control.value != nil {
			t.Fatal(control, err)
		}
		if p != nil {
			packets++
		}
	}
	if packets != 2 {
		t.Errorf("there are %d packets", packets)
	}
}

// endless is a stream that never ends.
type endless struct{ read int }

func (e *endless) Read(b []byte) (int, error) {
	clear(b)
	e.read += len(b)
	return len(b), nil
}

func TestHostileCapsules(t *testing.T) {
	for _, c := range []struct {
		name  string
		begin []byte
		want  string
	}{
		{"a DATAGRAM that is too long", appendVarint([]byte{0}, maxDatagram+1), "more than"},
		{"a DATAGRAM without end", appendVarint([]byte{0}, 1<<62-1), "more than"},
		{"a DATAGRAM without context", []byte{0, 0}, "no context"},
		{"a DATAGRAM that ends in its context", []byte{0, 1, 0xc0}, "within its context"},
		{"an unknown type without end", appendVarint(appendVarint(nil, 1<<40), 1<<62-1), "more than"},
		{"an unknown type that is too long", appendVarint([]byte{0x17}, maxUnknown+1), "more than"},
		{"addresses without end", appendVarint([]byte{1}, 1<<30), "more than"},
		{"a request that is too long", appendVarint([]byte{2}, maxControl+1), "more than"},
		{"routes that are too long", appendVarint([]byte{3}, maxControl+1), "more than"},
	} {
		source := &endless{}
		_, _, err := readCapsule(bufio.NewReaderSize(io.MultiReader(bytes.NewReader(c.begin), source), 64))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if source.read > 64 {
			t.Errorf("%s: %d bytes were read", c.name, source.read)
		}
	}
	for name, b := range vectors(t) {
		for n := 1; n < len(b); n++ {
			if _, _, err := readCapsule(streamOf(b[:n])); !errors.Is(err, errTruncated) {
				t.Errorf("%d bytes of %s: %v", n, name, err)
			}
		}
	}
	long := appendCapsule(nil, 0x17, make([]byte, 1000))
	if _, _, err := readCapsule(streamOf(long[:900])); !errors.Is(err, errTruncated) {
		t.Errorf("a truncated unknown capsule: %v", err)
	}
}

func TestParseErrors(t *testing.T) {
	six := func(a string) []byte { return netip.MustParseAddr(a).AsSlice() }
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"version 5", append([]byte{1, 5}, make([]byte, 17)...)},
		{"a length of 129", append(append([]byte{1, 6}, six("::")...), 129)},
		{"a length of 33", []byte{1, 4, 0, 0, 0, 0, 33}},
		{"bits behind the length", append(append([]byte{1, 6}, six("2001:db8::1")...), 64)},
		{"no length", append([]byte{1, 6}, six("::")...)},
		{"half an address", []byte{1, 6, 0, 0}},
		{"a number only", []byte{1}},
		{"half a number", []byte{0x40}},
	} {
		if all, err := parseAddresses(c.b); err == nil {
			t.Errorf("addresses: %s: %v", c.name, all)
		}
	}
	route := func(version byte, from, to []byte, protocol byte) []byte {
		return append(append(append([]byte{version}, from...), to...), protocol)
	}
	a, b := []byte{10, 0, 0, 0}, []byte{10, 0, 0, 255}
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"backwards", route(4, b, a, 0)},
		{"overlapping", append(route(4, a, b, 0), route(4, b, b, 0)...)},
		{"protocols not in order", append(route(4, a, a, 6), route(4, b, b, 0)...)},
		{"versions not in order", append(route(6, six("::"), six("::1"), 0), route(4, b, b, 0)...)},
		{"version 0", route(0, a, b, 0)},
		{"no protocol", route(4, a, b, 0)[:9]},
		{"half", route(4, a, b, 0)[:6]},
	} {
		if all, err := parseRoutes(c.b); err == nil {
			t.Errorf("routes: %s: %v", c.name, all)
		}
	}
	if got, err := parseRoutes(routeCapsule(prefixes("2001:db8::/32", "10.0.1.0/24", "10.0.0.0/24"))[2:]); err != nil || len(got) != 3 || got[0].To != netip.MustParseAddr("10.0.0.255") {
		t.Errorf("our routes: %v, %v", got, err)
	}
}

func TestAnswer(t *testing.T) {
	ours := prefixes("10.0.0.1/32", "2001:db8:1::/64", "2001:db8:2::/64")
	any4, any6 := netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("::/128")
	for _, c := range []struct {
		name     string
		requests []address
		want     []address
	}{
		{"nothing", nil, []address{{0, ours[0]}, {0, ours[1]}, {0, ours[2]}}},
		{"one of each", []address{{7, any6}, {8, any4}}, []address{{7, ours[1]}, {8, ours[0]}, {0, ours[2]}}},
		{"a certain one last", []address{{1, any6}, {2, ours[1]}}, []address{{1, ours[2]}, {2, ours[1]}, {0, ours[0]}}},
		{"too many", []address{{1, any4}, {2, any4}, {3, netip.MustParsePrefix("10.9.0.0/16")}}, []address{{1, ours[0]}, {2, any4}, {3, any4}, {0, ours[1]}, {0, ours[2]}}},
	} {
		if got := answer(c.requests, ours); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// The reader ends, with a packet or an error, whatever it reads.
func FuzzCapsules(f *testing.F) {
	for _, b := range vectors(f) {
		f.Add(b)
	}
	f.Add(appendVarint([]byte{0}, 1<<62-1))
	f.Add([]byte{0, 1, 0xc0, 0, 0, 0})
	f.Add(appendCapsule(nil, capsuleIdle, []byte{1, 2, 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, left := streamOf(b), len(b)
		for {
			p, control, err := readCapsule(r)
			if err != nil {
				return
			}
			now := 0
			if p != nil {
				now = len(p.B)
				p.Free()
			}
			now += len(control.value)
			if now > left {
				t.Fatalf("%d bytes out of %d", now, left)
			}
			left -= now
			switch control.kind {
			case capsuleRoutes:
				if routes, err := parseRoutes(control.value); err == nil {
					for _, r := range routes {
						if r.From.Compare(r.To) > 0 {
							t.Fatal(r)
						}
					}
				}
			case capsuleAssign, capsuleRequest:
				all, err := parseAddresses(control.value)
				if err != nil {
					continue
				}
				again := addressCapsule(control.kind, all)
				_, c, err := readCapsule(streamOf(again))
				if err != nil {
					t.Fatal(err)
				}
				if same, err := parseAddresses(c.value); err != nil || !slices.Equal(all, same) {
					t.Fatalf("%v became %v, %v", all, same, err)
				}
				answer(all, prefixes("10.0.0.1/32", "2001:db8::/64"))
			}
		}
	})
}
