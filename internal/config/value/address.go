package value

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"sixfour/internal/config/problem"
)

// errNoAddress means that a text does not look like an address.
var errNoAddress = errors.New("it is no IP address")

// ParseAddr parses an address that can be used in an IP header. If the error names a
// correct address, ParseAddr returns that address too.
func ParseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, errNoAddress
	case a.Zone() != "":
		return a.WithZone("").Unmap(), fmt.Errorf("an address here has no zone: write %v", a.WithZone("").Unmap())
	case a.Is4In6():
		return a.Unmap(), fmt.Errorf("it is an IPv4-mapped IPv6 address: write %v", a.Unmap())
	}
	return a, nil
}

// ParseEnd is ParseAddr for an end of an outermost layer, which may be a link-local IPv6
// address with its interface, the zone (RFC 4007 section 11).
func ParseEnd(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() == "" || !a.IsLinkLocalUnicast() {
		return ParseAddr(s)
	}
	if z := a.Zone(); z == "." || z == ".." || len(z) > MaxName || !ValidName(z) {
		return a.WithZone(""), fmt.Errorf("%s cannot be the name of an interface: write %v%%DEV", problem.Quote(z), a.WithZone(""))
	}
	return a, nil
}

func Version(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

// addressOf names an address of an IP version; 0 means either.
func addressOf(version int) string {
	if version == 0 {
		return "an IP address"
	}
	return fmt.Sprintf("an IPv%d address", version)
}

// ParsePrefix parses a prefix. Host bits may be set.
func ParsePrefix(s string) (netip.Prefix, error) {
	addr, length, found := strings.Cut(s, "/")
	a, err := ParseAddr(addr)
	switch {
	case errors.Is(err, errNoAddress):
		return netip.Prefix{}, errors.New("it must be an IP address and its prefix length, such as \"192.0.2.0/24\" or \"2001:db8::/64\"")
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%w/LENGTH", err)
	case !found:
		return netip.Prefix{}, fmt.Errorf("it has no prefix length: write %v/LENGTH, with a length from 0 to %d", a, a.BitLen())
	}
	n, err := strconv.ParseUint(length, 10, 8)
	if err != nil || int(n) > a.BitLen() || length != strconv.Itoa(int(n)) {
		return netip.Prefix{}, fmt.Errorf("its prefix length must be a number from 0 to %d", a.BitLen())
	}
	return netip.PrefixFrom(a, int(n)), nil
}
