package selfroute

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sixfour/internal/netcfg"
)

// Which routes are held back, depending on the prefix of the kernel's route to the remote
// address.
func TestCheck(t *testing.T) {
	var routes []netip.Prefix
	for _, r := range []string{"0.0.0.0/0", "203.0.0.0/16", "203.0.113.0/24", "203.0.113.9/32", "10.0.0.0/8", "::/0"} {
		routes = append(routes, netip.MustParsePrefix(r))
	}
	for _, c := range []struct {
		what    string
		remote  string // "": not known yet
		version int
		bits    int // prefix length of the kernel's route; -1: no route
		held    string
		waits   string // beginning of what the peer waits for
	}{
		{"host route", "203.0.113.20", 4, 32, "[]", ""},
		{"the uplink's subnet", "203.0.113.20", 4, 24, "[203.0.113.0/24]", "a route to 203.0.113.20 through the uplink: the key routes contains 203.0.113.0/24,"},
		{"default route", "203.0.113.20", 4, 0, "[0.0.0.0/0 203.0.0.0/16 203.0.113.0/24]", "a route to 203.0.113.20 through the uplink: the key routes contains 203.0.113.0/24,"},
		{"none", "203.0.113.20", 4, -1, "[0.0.0.0/0 203.0.0.0/16 203.0.113.0/24]", "a route to 203.0.113.20"},
		{"to the peer alone", "203.0.113.9", 4, 32, "[203.0.113.9/32]", "a route to 203.0.113.9 through the uplink: the key routes contains this address"},
		{"another address", "192.0.2.1", 4, 8, "[]", ""},
		{"name not resolved", "", 4, 0, "[0.0.0.0/0]", "a route to"},
		{"name not resolved, over IPv6", "", 6, 0, "[::/0]", "a route to"},
	} {
		var h Held
		var remote netip.Addr
		if c.remote != "" {
			remote = netip.MustParseAddr(c.remote)
		}
		answer := netcfg.Answer{Route: netcfg.Route{Bits: c.bits}}
		if c.bits < 0 {
			answer = netcfg.Answer{Err: errors.New("none")}
		}
		waits := h.Check("six0", routes, remote, c.version, answer)
		slices.SortFunc(h.Routes, netip.Prefix.Compare)
		if fmt.Sprint(h.Routes) != c.held || !strings.HasPrefix(waits, c.waits) || (waits == "") != (c.waits == "") {
			t.Errorf("%s: holds %v back, waits for %q, want %s, %q", c.what, h.Routes, waits, c.held, c.waits)
		}
		if n := len(h.Rest(routes)); n != len(routes)-len(h.Routes) {
			t.Errorf("%s: %d routes remain", c.what, n)
		}
	}
}

// Another list of routes is indexed again; without routes nothing is held back.
func TestOtherRoutes(t *testing.T) {
	var h Held
	remote := netip.MustParseAddr("203.0.113.20")
	h.Check("six0", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, remote, 4, netcfg.Answer{})
	h.Check("six0", nil, remote, 4, netcfg.Answer{})
	if len(h.Routes) != 0 {
		t.Errorf("%v are held back", h.Routes)
	}
	h.Check("six0", []netip.Prefix{netip.MustParsePrefix("203.0.0.0/8")}, remote, 4, netcfg.Answer{})
	h.Check("six0", []netip.Prefix{netip.MustParsePrefix("203.0.0.0/8")}, remote, 4, netcfg.Answer{})
	if len(h.Routes) != 1 {
		t.Errorf("%v are held back", h.Routes)
	}
}
