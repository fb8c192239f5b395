package nft

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

var (
	one = netip.MustParseAddr("127.0.0.1")
	two = netip.MustParseAddr("127.0.0.2")

	one6 = netip.MustParseAddr("::1")
	two6 = netip.MustParseAddr("2001:db8::2") // no host has it
)

// portUnreachable returns an ICMP port unreachable that quotes a packet of a protocol.
func portUnreachable(from, to netip.Addr, code, quoted byte) []byte {
	p := make([]byte, 20+8+28)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_ICMP
	s, d := from.As4(), to.As4()
	copy(p[12:], s[:])
	copy(p[16:], d[:])
	p[20], p[21] = 3, code
	q := p[28:]
	q[0], q[3], q[8], q[9] = 0x45, 28, 64, quoted
	copy(q[12:], d[:])
	copy(q[16:], s[:])
	return p
}

// passes reports whether a packet that the namespace sends to itself arrives.
func passes(t *testing.T, ns *rig.Namespace, packet []byte) bool {
	t.Helper()
	c, err := ns.Capture("lo")
	rigtest.Must(t, err)
	defer c.Close()
	raw, err := ns.OpenRaw()
	rigtest.Must(t, err)
	defer raw.Close()
	err = raw.Send(packet)
	if err != nil && !errors.Is(err, unix.EPERM) { // EPERM: a filter dropped it
		t.Fatal(err)
	}
	// A packet to the own host has arrived when the call that sends it returns.
	frames, werr := c.Waiting()
	rigtest.Must(t, werr)
	if (len(frames) > 0) != (err == nil) {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	return len(frames) > 0
}

// tables returns the names of the nftables tables in the current namespace.
func tables(t *testing.T) (names []string) {
	t.Helper()
	c, err := nftables.New()
	rigtest.Must(t, err)
	list, err := c.ListTables()
	rigtest.Must(t, err)
	for _, table := range list {
		names = append(names, table.Name)
	}
	return names
}

// ways are the two kinds of tables: those that the kernel removes with the process, and
// those of older kernels.
var ways = []struct {
	name  string
	flags uint32
}{{"owned", tableOwner}, {"not owned", 0}}

func TestSuppressorDropsOnlyPortUnreachables(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			ns := rigtest.Enter(t, "nft")
			s, err := openSuppressor(way.flags)
			rigtest.Must(t, err)
			defer s.Close()
			want := func(when string, from netip.Addr, code, quoted byte, dropped bool) {
				t.Helper()
				if got := !passes(t, ns, portUnreachable(from, one, code, quoted)); got != dropped {
					t.Errorf("%s: from %v, code %d, quoting protocol %d: dropped is %v", when, from, code, quoted, got)
				}
			}
			want("nothing protected", one, 3, unix.IPPROTO_IPV6, false)

			rigtest.Must(t, s.Suppress([]Endpoint{{one, unix.IPPROTO_IPV6}}))
			want("one protected", one, 3, unix.IPPROTO_IPV6, true)
			want("one protected", two, 3, unix.IPPROTO_IPV6, false)
			want("one protected", one, 3, unix.IPPROTO_UDP, false)
			want("one protected", one, 3, unix.IPPROTO_GRE, false)
			want("one protected", one, 1, unix.IPPROTO_IPV6, false)

			rigtest.Must(t, s.Suppress([]Endpoint{{two, unix.IPPROTO_IPV6}, {two, unix.IPPROTO_GRE}, {two, unix.IPPROTO_GRE}}))
			want("two protected", one, 3, unix.IPPROTO_IPV6, false)
			want("two protected", two, 3, unix.IPPROTO_IPV6, true)
			want("two protected", two, 3, unix.IPPROTO_GRE, true)
			want("two protected", two, 3, unix.IPPROTO_IPIP, false)
			if n := dropped(t, s, &s.v4); n != 3 {
				t.Errorf("the rule's counter is %d, want 3", n)
			}

			rigtest.Must(t, s.Suppress(nil))
			want("nothing protected", two, 3, unix.IPPROTO_IPV6, false)
		})
	}
}

// dropped returns the sum of the counters of a family's rules.
func dropped(t *testing.T, s *Suppressor, g *familyRules) (n uint64) {
	t.Helper()
	rules, err := s.own.conn.GetRules(g.table, &nftables.Chain{Table: g.table, Name: "output"})
	rigtest.Must(t, err)
	counters := 0
	for _, r := range rules {
		for _, e := range r.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				n += c.Packets
				counters++
			}
		}
	}
	if counters == 0 {
		t.Fatal("no counter")
	}
	return n
}

// portUnreachable6 returns an ICMPv6 error that quotes a packet of next headers; the
// last one is the protocol, the others are options.
func portUnreachable6(to netip.Addr, kind, code byte, quoted ...byte) []byte {
	p := make([]byte, 40+8+40+8*len(quoted))
	header := func(b []byte, next byte, from, to netip.Addr) {
		b[0], b[6], b[7] = 0x60, next, 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		copy(b[8:], from.AsSlice())
		copy(b[24:], to.AsSlice())
	}
	header(p, unix.IPPROTO_ICMPV6, one6, one6)
	p[40], p[41] = kind, code
	q := p[48:]
	header(q, quoted[0], one6, to)
	for i, next := range quoted[1:] {
		copy(q[40+8*i:], []byte{next, 0, 4, 1, 4, 1, 1, 0}) // RFC 2473 section 4.1.1: a limit of 4; PadN
	}
	return p
}

// passes6 is passes for IPv6.
func passes6(t *testing.T, ns *rig.Namespace, packet []byte) bool {
	t.Helper()
	c, err := ns.Capture("lo")
	rigtest.Must(t, err)
	defer c.Close()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	rigtest.Must(t, err)
	defer unix.Close(fd)
	err = unix.Sendto(fd, packet, 0, &unix.SockaddrInet6{Addr: one6.As16()})
	if err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	frames, werr := c.Waiting()
	rigtest.Must(t, werr)
	if (len(frames) > 0) != (err == nil) {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	return len(frames) > 0
}

func TestSuppressorIPv6DropsOnlyPortUnreachables(t *testing.T) {
	const limited = unix.IPPROTO_DSTOPTS
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			ns := rigtest.Enter(t, "nft")
			s, err := openSuppressor(way.flags)
			rigtest.Must(t, err)
			defer s.Close()
			want := func(when string, to netip.Addr, kind, code byte, drop bool, quoted ...byte) {
				t.Helper()
				if got := !passes6(t, ns, portUnreachable6(to, kind, code, quoted...)); got != drop {
					t.Errorf("%s: type %d, code %d, quoting next headers %d to %v: dropped is %v", when, kind, code, quoted, to, got)
				}
			}
			// A quote that ends after the IPv6 header has no options to read.
			cut := portUnreachable6(two6, 1, 4, limited)[:40+8+40]
			binary.BigEndian.PutUint16(cut[4:], 8+40)

			want("nothing protected", two6, 1, 4, false, unix.IPPROTO_IPV6)
			rigtest.Must(t, s.Suppress([]Endpoint{{two6, unix.IPPROTO_IPV6}, {one, unix.IPPROTO_IPIP}}))
			want("one protected", two6, 1, 4, true, unix.IPPROTO_IPV6)
			want("one protected", two6, 1, 4, true, limited, unix.IPPROTO_IPV6)
			want("one protected", one6, 1, 4, false, unix.IPPROTO_IPV6)
			want("one protected", one6, 1, 4, false, limited, unix.IPPROTO_IPV6)
			want("one protected", two6, 1, 4, false, unix.IPPROTO_UDP)
			want("one protected", two6, 1, 4, false, limited, unix.IPPROTO_UDP)
			want("one protected", two6, 1, 4, false, unix.IPPROTO_IPIP)
			want("one protected", two6, 1, 3, false, unix.IPPROTO_IPV6)
			want("one protected", two6, 3, 0, false, unix.IPPROTO_IPV6)
			want("options of another kind", two6, 1, 4, false, unix.IPPROTO_HOPOPTS, unix.IPPROTO_IPV6)
			if !passes6(t, ns, cut) {
				t.Error("a quote that is cut short is dropped")
			}
			if passes(t, ns, portUnreachable(one, one, 3, unix.IPPROTO_IPIP)) {
				t.Error("the end for IPv4 is not protected")
			}

			rigtest.Must(t, s.Suppress([]Endpoint{{one6, unix.IPPROTO_IPIP}, {one6, unix.IPPROTO_GRE}}))
			want("others protected", two6, 1, 4, false, unix.IPPROTO_IPV6)
			want("others protected", one6, 1, 4, true, unix.IPPROTO_IPIP)
			want("others protected", one6, 1, 4, true, limited, unix.IPPROTO_GRE)
			if !passes(t, ns, portUnreachable(one, one, 3, unix.IPPROTO_IPIP)) {
				t.Error("the end for IPv4 is still protected")
			}
			if n := dropped(t, s, &s.v6); n != 4 {
				t.Errorf("the counters are %d, want 4", n)
			}
			if got := tables(t); len(got) != 2 || got[0] != s.Name() || got[1] != s.Name() {
				t.Errorf("tables: %v, want %s for each family", got, s.Name())
			}

			rigtest.Must(t, s.Suppress(nil))
			want("nothing protected", one6, 1, 4, false, unix.IPPROTO_GRE)
			rigtest.Must(t, s.Close())
			if got := tables(t); len(got) != 0 {
				t.Errorf("left: %v", got)
			}
		})
	}
}

func TestCloseRemovesTables(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			rigtest.Enter(t, "nft")
			a, err := openSuppressor(way.flags)
			rigtest.Must(t, err)
			b, err := openSuppressor(way.flags)
			rigtest.Must(t, err)
			rigtest.Must(t, b.Suppress([]Endpoint{{one, unix.IPPROTO_IPV6}}))
			if got := tables(t); len(got) != 2 || got[0] == got[1] {
				t.Errorf("tables of two: %v", got)
			}
			rigtest.Must(t, a.Close())
			if got := tables(t); len(got) != 1 || got[0] != b.Name() {
				t.Errorf("tables after one is closed: %v, want %s", got, b.Name())
			}
			rigtest.Must(t, b.Close())
			if got := tables(t); len(got) != 0 {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// TestTablesWithoutOwner: tables that a killed process has left, and a table that was
// removed.
func TestTablesWithoutOwner(t *testing.T) {
	ns := rigtest.Enter(t, "nft")
	dead, err := openSuppressor(0)
	rigtest.Must(t, err)
	rigtest.Must(t, dead.Suppress([]Endpoint{{one6, unix.IPPROTO_IPV6}}))
	dead.own.release()
	rigtest.Must(t, dead.own.conn.CloseLasting())
	c, err := nftables.New()
	rigtest.Must(t, err)
	c.AddTable(&nftables.Table{Name: "sixfour", Family: nftables.TableFamilyIPv4}) // made by hand
	rigtest.Must(t, c.Flush())

	s, err := openSuppressor(0)
	rigtest.Must(t, err)
	defer s.Close()
	if got := strings.Join(tables(t), " "); got != "sixfour "+s.Name() {
		t.Errorf("tables: %s, want sixfour and %s", got, s.Name())
	}
	ends := []Endpoint{{one, unix.IPPROTO_IPV6}, {one6, unix.IPPROTO_IPV6}}
	rigtest.Must(t, s.Suppress(ends))
	c.FlushRuleset()
	rigtest.Must(t, c.Flush())
	if !passes(t, ns, portUnreachable(one, one, 3, unix.IPPROTO_IPV6)) {
		t.Error("dropped by a table that is gone")
	}
	rigtest.Must(t, s.Suppress(ends))
	if passes(t, ns, portUnreachable(one, one, 3, unix.IPPROTO_IPV6)) {
		t.Error("the table was not made again")
	}
	if passes6(t, ns, portUnreachable6(one6, 1, 4, unix.IPPROTO_IPV6)) {
		t.Error("the table for IPv6 was not made again")
	}
}

// TestTablesOwned: no other process can remove an owned table.
func TestTablesOwned(t *testing.T) {
	ns := rigtest.Enter(t, "nft")
	s, err := OpenSuppressor()
	rigtest.Must(t, err)
	if !s.own.owned() {
		t.Fatal("this kernel knows no owners of tables, which came with Linux 5.12: run the tests on a newer one")
	}
	rigtest.Must(t, s.Suppress([]Endpoint{{one, unix.IPPROTO_IPV6}}))
	c, err := nftables.New()
	rigtest.Must(t, err)
	c.FlushRuleset()
	rigtest.Must(t, c.Flush())
	if passes(t, ns, portUnreachable(one, one, 3, unix.IPPROTO_IPV6)) {
		t.Error("somebody else removed the table")
	}
	// As if the process had died.
	rigtest.Must(t, s.own.conn.CloseLasting())
	for deadline := time.Now().Add(10 * time.Second); len(tables(t)) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the table outlives its owner: %v", tables(t))
		}
	}
}
