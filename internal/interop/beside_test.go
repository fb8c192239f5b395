//go:build interop

package interop

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// tunnelOf returns one of many tunnels between the same two hosts.
type tunnelOf struct {
	mode         string
	version      int // of the outer header
	protocol     byte
	here, there  string // addresses inside
	prefixLength int
}

var tunnels = []tunnelOf{
	{"6in4", 4, unix.IPPROTO_IPV6, "2001:db8:64::2", "2001:db8:64::1", 64},
	{"4in4", 4, unix.IPPROTO_IPIP, "10.0.44.2", "10.0.44.1", 30},
	{"gre", 4, unix.IPPROTO_GRE, "2001:db8:74::2", "2001:db8:74::1", 64},
	{"6in6", 6, unix.IPPROTO_IPV6, "2001:db8:66::2", "2001:db8:66::1", 64},
	{"4in6", 6, unix.IPPROTO_IPIP, "10.0.46.2", "10.0.46.1", 30},
	{"gre6", 6, unix.IPPROTO_GRE, "10.0.76.2", "10.0.76.1", 30},
}

// allTunnels returns a configuration with all of them, for our end or for the other one. It
// begins within the table of the first tunnel.
func allTunnels(there bool) string {
	var tables []string
	for _, u := range tunnels {
		inner, local, remote := u.here, ours, theirs
		if u.version == 6 {
			local, remote = ours6, theirs6
		}
		if there {
			inner, local, remote = u.there, remote, local
		}
		tables = append(tables, fmt.Sprintf("mode = %q\nlocal = %q\nremote = %q\naddress = [\"%s/%d\"]\n", u.mode, local, remote, inner, u.prefixLength))
	}
	for i := range tables[1:] {
		tables[i+1] = fmt.Sprintf("[[tunnel]]\nname = \"six%d\"\n", i+1) + tables[i+1]
	}
	return strings.Join(tables, "")
}

// isRefused reports whether a packet is an ICMP error of the kernel about a packet of the
// tunnel, which is quoted after eight bytes.
func (u tunnelOf) isRefused(f rig.Frame) bool {
	p, ok := dissect(f.Packet())
	if !ok || f.Outgoing || p.version != u.version || len(p.payload) < 8+20 {
		return false
	}
	if p.version == 4 {
		return p.protocol == unix.IPPROTO_ICMP && p.payload[0] == 3 && p.payload[8+9] == u.protocol
	}
	return p.protocol == unix.IPPROTO_ICMPV6 && p.payload[0] == 1 && p.payload[8+6] == u.protocol
}

// All configured modes at once between the same two hosts. The kernel of one has all its
// tunnel modules loaded and no tunnel: it answers packets of each mode with errors, unless
// these are suppressed.
func TestEveryModeBesideTheKernel(t *testing.T) {
	kernel(t, "")
	daemon(t, lab.ns, allTunnels(false))
	c, err := lab.ns.Capture(tap)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, u := range tunnels {
		r, err := rig.Ping(t.Context(), lab.ns, netip.MustParseAddr(u.there), rig.PingOptions{Timeout: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Find(t.Context(), u.isRefused); r.Received > 0 || err != nil {
			t.Errorf("%s: the kernel should answer for a tunnel that nobody has: %+v, %v", u.mode, r, err)
		}
		report(t, "%s, nobody there: the kernel sent a port unreachable", u.mode)
	}

	startInMachine(t, allTunnels(true))
	waitLog(t, "these errors are suppressed")
	waitLog(t, "ready")
	if _, err := c.Waiting(); err != nil { // errors until now do not count
		t.Fatal(err)
	}
	for _, u := range tunnels {
		there := netip.MustParseAddr(u.there)
		r, err := rig.Ping(t.Context(), lab.ns, there, rig.PingOptions{Count: 5, Timeout: patience})
		if err != nil || r.Received != r.Sent {
			t.Errorf("%s: %+v, %v", u.mode, r, err)
		}
		tr, err := daemonEnd{lab.ns}.tcp(t.Context(), there, brief.tcpBytes)
		if err != nil {
			t.Errorf("%s: TCP: %v", u.mode, err)
		}
		frames, err := c.Waiting()
		n := count(frames, u.isRefused)
		if err != nil || n > 0 {
			t.Errorf("%s: the kernel sent %d port unreachables (%v)", u.mode, n, err)
		}
		report(t, "%s, two sixfourds: %d pings, %d answered; TCP %d bytes in %v; the kernel sent %d port unreachables",
			u.mode, r.Sent, r.Received, tr.Bytes, tr.Elapsed.Round(10*time.Millisecond), n)
	}
}
