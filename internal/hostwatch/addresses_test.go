package hostwatch

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sixfour/internal/netcfg"
)

func address(a, subnet string, link int) netcfg.Address {
	one := netcfg.Address{Prefix: netip.MustParsePrefix(a), Link: link}
	if subnet != "" {
		one.Subnet = netip.MustParsePrefix(subnet)
	}
	return one
}

// Mechanisms get the IPv4 addresses, and the IPv6 subnets of links that are no automatic
// tunnels.
func TestAddresses(t *testing.T) {
	a := Addresses{Log: zap.NewNop(), IsAutomatic: func(_ string, link int) bool { return link == 9 }}
	a.set("", []netcfg.Address{
		address("192.0.2.9/24", "192.0.2.0/24", 2), address("192.0.2.1/24", "192.0.2.0/24", 2),
		address("2001:db8:2::1/64", "2001:db8:2::/64", 3), address("2001:db8:1::1/64", "2001:db8:1::/64", 2), address("2001:db8:1::2/64", "2001:db8:1::/64", 2),
		address("fe80::1/64", "fe80::/64", 2), address("2002:c000:201::1/16", "2002::/16", 9), address("2001:db8:3::1/128", "", 4),
	}, nil)
	if got := fmt.Sprint(a.Links()); got != "[192.0.2.1/24 192.0.2.9/24]" {
		t.Errorf("links %s", got)
	}
	if got := fmt.Sprint(a.Elsewhere("")); got != "[2001:db8:1::/64 2001:db8:2::/64]" {
		t.Errorf("elsewhere %s", got)
	}
	if got := a.Elsewhere("other"); got != nil {
		t.Errorf("in another namespace %v", got)
	}
}

// If the addresses cannot be read, they stay as they were; the same error is logged once.
func TestAddressesFail(t *testing.T) {
	core, seen := observer.New(zap.WarnLevel)
	a := Addresses{Log: zap.New(core), IsAutomatic: func(string, int) bool { return false }}
	list := []netcfg.Address{address("192.0.2.1/24", "192.0.2.0/24", 2)}
	no := errors.New("too many open files")
	a.set("", list, nil)
	nets := a.hosts[""].nets
	a.set("", nil, no)
	a.set("", nil, no)
	if a.hosts[""].nets != nets || len(a.Links()) != 1 || seen.Len() != 1 {
		t.Errorf("%v, logged %d times", a.Links(), seen.Len())
	}
	a.set("", list, nil)
	a.set("", nil, no)
	if seen.Len() != 2 {
		t.Errorf("logged %d times", seen.Len())
	}
}

// The surroundings are made again only if the addresses, the interface or the prefixes behind
// it have changed.
func TestSurroundings(t *testing.T) {
	a := Addresses{Log: zap.NewNop(), IsAutomatic: func(string, int) bool { return false }}
	var s Surroundings
	made := 0
	behind := func() [][]netip.Prefix { made++; return nil }
	update := func(link, want int) {
		t.Helper()
		if s.Update(&a, "", link, behind); made != want {
			t.Errorf("made %d times, not %d", made, want)
		}
	}
	update(7, 0) // the addresses are not known
	a.set("", []netcfg.Address{address("192.0.2.1/24", "192.0.2.0/24", 2)}, nil)
	update(7, 1)
	update(7, 1)
	update(8, 2)
	s.Renew()
	update(8, 3)
	a.set("", []netcfg.Address{address("192.0.2.2/24", "192.0.2.0/24", 2)}, nil)
	update(8, 4)
	update(8, 4)
}
