package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// shields returns the nftables tables of a namespace.
func shields(t *testing.T, ns *rig.Namespace) (names []string) {
	t.Helper()
	must(t, ns.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		for _, table := range tables {
			names = append(names, table.Name)
		}
		return err
	}))
	return names
}

// shielded waits until there are n tables.
func shielded(t *testing.T, ns *rig.Namespace, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d shields", want), func() error {
		if got := shields(t, ns); len(got) != want {
			return fmt.Errorf("there are %v", got)
		}
		return nil
	})
}

// unreachable sends an ICMP port unreachable from outerA to outerB that quotes a packet of
// a protocol, and reports whether a filter dropped it.
func unreachable(t *testing.T, ns *rig.Namespace, quoted byte) (dropped bool) {
	t.Helper()
	p := make([]byte, 20+8+28)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_ICMP
	copy(p[12:], outerA.AsSlice())
	copy(p[16:], outerB.AsSlice())
	p[20], p[21] = 3, 3
	p[28], p[31], p[36], p[37] = 0x45, 28, 64, quoted
	copy(p[40:], outerB.AsSlice())
	copy(p[44:], outerA.AsSlice())
	raw, err := ns.OpenRaw()
	must(t, err)
	defer raw.Close()
	err = raw.Send(p)
	if err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	return err != nil
}

// If the kernel has its own tunnels, here a device with the name of one, its ICMP errors to
// our peers are suppressed for as long as that is the case and the daemon runs.
func TestShield(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	a := start(t, h.a, "[security]\npacket_filter = \"on\"\n"+configA())
	reachable(t, h.a, inB)
	if got := shields(t, h.a); len(got) != 0 {
		t.Errorf("shields without need: %v", got)
	}

	must(t, rig.Veth(h.a, "sit0", h.a, "other", 1500))
	a.wait(t, "these errors are suppressed")
	shielded(t, h.a, 1)
	if !unreachable(t, h.a, unix.IPPROTO_IPV6) {
		t.Error("the kernel's answer was not kept back")
	}
	if unreachable(t, h.a, unix.IPPROTO_UDP) {
		t.Error("an answer to UDP was kept back")
	}
	reachable(t, h.a, inB)

	must(t, h.a.DelLink("sit0"))
	a.wait(t, "no longer suppressed")
	shielded(t, h.a, 0)
	if unreachable(t, h.a, unix.IPPROTO_IPV6) {
		t.Error("an answer was kept back without need")
	}
}

// A daemon that did not need nftables when it started cannot use it later: if the kernel
// then answers, the log says so, and what to do; a reload with a gateway is refused.
func TestNoPacketFilter(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	a := start(t, h.a, configA())
	r := a.reload(t, "[gateway]\nmasquerade = \"va\"\n"+configA())
	if !strings.Contains(r.Error, "[gateway]: the daemon has given up the right to use the packet filter: restart it") {
		t.Errorf("%+v", r)
	}
	must(t, rig.Veth(h.a, "sit0", h.a, "other", 1500))
	a.wait(t, `or restart the daemon, which gave up the right to use nftables; packet_filter = "on" in [security] keeps it`)
	pings(t, h.a, inB, rig.PingOptions{})
}

// Two daemons in one namespace, one of which ends normally, the other by SIGKILL: each has
// its own table, which disappears with it.
func TestTwoShields(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	third := netip.MustParseAddr("203.0.113.11")
	must(t, h.a.AddAddr("va", netip.PrefixFrom(third, 24)))
	must(t, rig.Veth(h.a, "sit0", h.a, "other", 1500))
	first := start(t, h.a, configA())
	shielded(t, h.a, 1)
	second := start(t, h.a, strings.NewReplacer("six0", "six1", outerA.String(), third.String(), "10.0.0.1/30", "10.0.1.1/30", "fc00::1/64", "fc01::1/64").Replace(configA()))
	shielded(t, h.a, 2)

	second.end(t, syscall.SIGTERM)
	shielded(t, h.a, 1)
	if !unreachable(t, h.a, unix.IPPROTO_IPV6) {
		t.Error("with the second daemon went the shield of the first")
	}
	first.end(t, syscall.SIGKILL)
	shielded(t, h.a, 0)
}
