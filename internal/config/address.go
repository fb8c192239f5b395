package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"sixfour/encap"
)

// errNoAddress means that a text does not look like an address.
var errNoAddress = errors.New("it is no IP address")

// parseAddr parses an address that can be used in an IP header. If the error names a
// correct address, parseAddr returns that address too.
func parseAddr(s string) (netip.Addr, error) {
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

// parseEnd is parseAddr for an end of an outermost layer, which may be a link-local IPv6
// address with its interface, the zone (RFC 4007 section 11).
func parseEnd(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() == "" || !a.IsLinkLocalUnicast() {
		return parseAddr(s)
	}
	if z := a.Zone(); z == "." || z == ".." || len(z) > maxName || !validName(z) {
		return a.WithZone(""), fmt.Errorf("%s is no name of an interface: write %v%%DEV", quote(z), a.WithZone(""))
	}
	return a, nil
}

func version(a netip.Addr) int {
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

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	reserved    = netip.MustParsePrefix("240.0.0.0/4")
	broadcast   = netip.MustParseAddr("255.255.255.255")
)

// NotUnicast says why an address cannot be an end of a tunnel. It returns "" if it can.
func NotUnicast(a netip.Addr) string {
	switch {
	case a == broadcast:
		return "the broadcast address"
	case thisNetwork.Contains(a):
		return "an address of 0.0.0.0/8, which means this network"
	case reserved.Contains(a):
		return "a reserved address, of 240.0.0.0/4"
	case a.IsMulticast():
		return "a multicast address"
	case a.Is4(): // 127.0.0.0/8 and 169.254.0.0/16 are valid for tunnels on one host or one link
		return ""
	case a.IsUnspecified():
		return "the unspecified address"
	case a.IsLoopback():
		return "the loopback address"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	}
	return ""
}

// parsePrefix parses a prefix. Host bits may be set.
func parsePrefix(s string) (netip.Prefix, error) {
	addr, length, found := strings.Cut(s, "/")
	a, err := parseAddr(addr)
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

// readPrefixes reads a list of prefixes. It calls add for each prefix of a version that
// the mode carries, and reports the error that add returns.
func readPrefixes(r *report, e entry, d *draft, add func(p netip.Prefix, at pos) error) {
	const want = "an array of strings, such as [\"192.0.2.0/24\", \"2001:db8::/64\"]"
	if e.kind != unstable.Array {
		refuseType(r, e, want)
		return
	}
	for _, item := range e.items {
		if r.full(item.at) {
			return
		}
		if item.kind != unstable.String {
			r.add(item.at, "%s has %s in it: it must be %s", e.name, kindNames[item.kind], want)
			continue
		}
		p, err := parsePrefix(item.text)
		if err == nil && d.known() && !d.Mode.Carries(version(p.Addr())) {
			err = fmt.Errorf("mode %q does not carry IPv%d: leave it out, or choose mode %s", d.Mode.Name, version(p.Addr()),
				list(quoteAll(modeNames(func(m encap.Mode) bool { return m.Carries(version(p.Addr())) }))))
		}
		if err == nil {
			err = add(p, item.at)
		}
		if err != nil {
			r.add(item.at, "%s has %s: %v", e.name, quote(item.text), err)
		}
	}
}

func readAddress(r *report, e entry, d *draft) {
	lines := map[netip.Addr]int{}
	readPrefixes(r, e, d, func(p netip.Prefix, at pos) error {
		a := p.Addr()
		if a.IsUnspecified() || a.IsMulticast() || a == broadcast || a == netip.IPv6Loopback() {
			return errors.New("an interface's address must be a unicast address, and not ::1")
		}
		if line, ok := lines[a]; ok {
			return fmt.Errorf("the address is already in line %d: leave one out", line)
		}
		lines[a] = at.line
		d.Address, d.addressAt = append(d.Address, p), append(d.addressAt, at)
		return nil
	})
}

func readRoutes(r *report, e entry, d *draft) {
	lines := map[netip.Prefix]int{}
	readPrefixes(r, e, d, func(p netip.Prefix, at pos) error {
		if p != p.Masked() {
			return fmt.Errorf("it has bits set beyond its prefix length: write %v", p.Masked())
		}
		if line, ok := lines[p]; ok {
			return fmt.Errorf("the route is already in line %d: leave one out", line)
		}
		lines[p] = at.line
		d.Routes, d.routesAt = append(d.Routes, p), append(d.routesAt, at)
		return nil
	})
}
