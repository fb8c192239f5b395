package configfile

import (
	"errors"
	"fmt"
	"net/netip"

	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// readPrefixes reads a list of prefixes. It calls add for each prefix of a version that
// the mode carries, and reports the error that add returns.
func readPrefixes(r *problem.Report, e tree.Entry, d *draft, add func(p netip.Prefix, at problem.Pos) error) {
	const want = "an array of strings, such as [\"192.0.2.0/24\", \"2001:db8::/64\"]"
	if e.Kind != tree.Array {
		value.RefuseType(r, e, want)
		return
	}
	for _, item := range e.Items {
		if r.Full(item.At) {
			return
		}
		if item.Kind != tree.String {
			r.Add(item.At, "%s has %s in it: it must be %s", e.Name, tree.KindNames[item.Kind], want)
			continue
		}
		p, err := value.ParsePrefix(item.Text)
		if err == nil && d.known() && !d.Mode.Carries(value.Version(p.Addr())) {
			err = fmt.Errorf("mode %q does not carry IPv%d: leave it out, or choose mode %s", d.Mode.Name, value.Version(p.Addr()),
				problem.Alternatives(problem.QuoteAll(keys.Modes(keys.Carries(value.Version(p.Addr()))))))
		}
		if err == nil {
			err = add(p, item.At)
		}
		if err != nil {
			r.Add(item.At, "%s has %s: %v", e.Name, problem.Quote(item.Text), err)
		}
	}
}

func readAddress(r *problem.Report, e tree.Entry, d *draft) {
	lines := map[netip.Addr]int{}
	readPrefixes(r, e, d, func(p netip.Prefix, at problem.Pos) error {
		a := p.Addr()
		if a.IsUnspecified() || a.IsMulticast() || a == config.Broadcast || a == netip.IPv6Loopback() {
			return errors.New("an interface's address must be a unicast address, and not ::1")
		}
		if line, ok := lines[a]; ok {
			return fmt.Errorf("the address is already in line %d: leave one out", line)
		}
		lines[a] = at.Line
		d.Address, d.addressAt = append(d.Address, p), append(d.addressAt, at)
		return nil
	})
}

func readRoutes(r *problem.Report, e tree.Entry, d *draft) {
	lines := map[netip.Prefix]int{}
	readPrefixes(r, e, d, func(p netip.Prefix, at problem.Pos) error {
		if p != p.Masked() {
			return fmt.Errorf("it has bits set beyond its prefix length: write %v", p.Masked())
		}
		if line, ok := lines[p]; ok {
			return fmt.Errorf("the route is already in line %d: leave one out", line)
		}
		lines[p] = at.Line
		d.Routes, d.routesAt = append(d.Routes, p), append(d.routesAt, at)
		return nil
	})
}
