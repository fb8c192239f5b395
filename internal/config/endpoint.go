package config

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// end is one end of a layer, as a key gives it.
type end struct {
	Host            // zero: "auto"
	key      string // "": not given
	at       pos
	readable bool // the value can be used
}

// auto reports whether the end is left to the kernel's routing.
func (e end) auto() bool { return e.readable && e.Host == Host{} }

// ends are the ends of all layers over one IP version that have none of their own.
type ends struct{ local, remote end }

// place says what a key's addresses are for.
type place struct {
	family    int  // IP version; 0: either
	outermost bool // so that local may be "auto", and remote a name
}

// readLocal reads this end of a layer.
func (p place) readLocal(r *report, e entry) end {
	got := end{key: e.name, at: e.at}
	switch {
	case !p.outermost:
		got.Addr, got.readable = endpoint(r, e, p.family, "", parseAddr)
	case e.kind == unstable.String && e.text == "auto":
		got.readable = true
	default:
		got.Addr, got.readable = endpoint(r, e, p.family, ` or "auto"`, parseEnd)
	}
	return got
}

// readRemote reads the other end of a layer.
func (p place) readRemote(r *report, e entry) end {
	got := end{key: e.name, at: e.at}
	switch {
	case e.kind == unstable.String && e.text == "learn":
		r.add(e.at, `%s is "learn": a remote end may be learnt from authenticated packets only, and no mode here has them: set it to an address or a DNS name`, e.name)
	case !p.outermost:
		got.Addr, got.readable = endpoint(r, e, p.family, "", parseAddr)
	default:
		got.Host, got.readable = host(r, e, p.family, orName)
	}
	return got
}

// anyWords are what iproute2 and others write for a remote end that may be anybody.
var anyWords = map[string]bool{"any": true, "dynamic": true, "*": true}

// orName is what else a host can be.
const orName = " or a DNS name"

// host reads an address of a family, or a DNS name. Or is what else the value
// could have been.
func host(r *report, e entry, family int, or string) (Host, bool) {
	// A host called "auto" is less likely than the belief that remote, as local
	// does, finds itself.
	if e.kind == unstable.String && anyWords[e.text] {
		r.add(e.at, `%s is %s, but packets are taken from and sent to known ends only, because their outer address is all by which they are known: `+
			`set it to the other end's address or DNS name; for several other ends, write a [[tunnel.peer]] for each`, e.name, quote(e.text))
		return Host{}, false
	}
	if e.kind == unstable.String && e.text != "auto" && isDNSName(e.text) {
		return Host{Name: e.text}, true
	}
	a, ok := endpoint(r, e, family, or, parseEnd)
	return Host{Addr: a}, ok
}

// endpoint reads one end's address, which must be of a family, an IP version; 0
// is either. Or is what else the value could have been.
func endpoint(r *report, e entry, family int, or string, parse func(string) (netip.Addr, error)) (netip.Addr, bool) {
	want := addressOf(family) + or
	s, ok := stringOf(r, e, want)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := parse(s)
	zoned := err == nil && a.Zone() != ""
	switch {
	case errors.Is(err, errNoAddress):
		refuse(r, e, want)
	case family != 0 && version(a) != family:
		refuse(r, e, want)
	case zoned:
		return a, true
	case a.Is6() && a.IsLinkLocalUnicast() && or != "" && err != nil:
		r.add(e.at, "%s is %s: %v", e.name, quote(s), err)
	case a.Is6() && a.IsLinkLocalUnicast() && or != "":
		r.add(e.at, "%s is %s, a link-local address, which exists once on each interface: write %v%%DEV, with the interface's name for DEV", e.name, quote(s), a)
	case NotUnicast(a) != "":
		unicast := "a unicast address"
		if a.Is6() {
			unicast = "a global or unique local unicast address"
		}
		r.add(e.at, "%s is %s, %s: it must be %s", e.name, quote(s), NotUnicast(a), unicast)
	case err != nil:
		r.add(e.at, "%s is %s: %v", e.name, quote(s), err)
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// isDNSName reports whether a text is a host name (RFC 1123 section 2.1) and
// no failed attempt at an IPv4 address.
func isDNSName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if len(s) > 253 {
		return false
	}
	last := ""
	for l := range strings.SplitSeq(s, ".") {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, nameCharacters) != "" {
			return false
		}
		last = l
	}
	return strings.Trim(last, "0123456789") != ""
}

// nameCharacters are those of host names, and the underscore that some use.
const nameCharacters = "-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
