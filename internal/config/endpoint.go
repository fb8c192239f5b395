package config

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// end is one end of a layer, as configured.
type end struct {
	Host            // zero: "auto"
	key      string // "": not given
	at       pos
	readable bool // the value is valid
}

// auto reports whether the kernel's routing chooses the end.
func (e end) auto() bool { return e.readable && e.Host == Host{} }

// ends are the ends of all layers over one IP version whose items have no ends.
type ends struct{ local, remote end }

// place says for which layers a key's address is used.
type place struct {
	family    int  // IP version; 0: either
	outermost bool // local may be "auto", and remote a name
}

// readLocal reads the local end of a layer.
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

// readRemote reads the remote end of a layer.
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

// anyWords are the words of iproute2 and others for any remote end.
var anyWords = map[string]bool{"any": true, "dynamic": true, "*": true}

// orName is the alternative to an address in error messages.
const orName = " or a DNS name"

// host reads an address of a family, or a DNS name. or is the alternative to it in error
// messages.
func host(r *report, e entry, family int, or string) (Host, bool) {
	// It is more likely that the user expects remote to be found automatically, like
	// local, than that a host is called "auto".
	if e.kind == unstable.String && anyWords[e.text] {
		r.add(e.at, `%s is %s, but sixfourd exchanges packets with configured addresses only, because nothing but its outer address identifies a peer: `+
			`set it to the other end's address or DNS name; for several other ends, write a [[tunnel.peer]] for each`, e.name, quote(e.text))
		return Host{}, false
	}
	if e.kind == unstable.String && e.text != "auto" && isDNSName(e.text) {
		return Host{Name: e.text}, true
	}
	a, ok := endpoint(r, e, family, or, parseEnd)
	return Host{Addr: a}, ok
}

// endpoint reads the address of one end, of an IP version; 0 means either. or is the
// alternative to it in error messages.
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
		r.doubt(e.at, "%s is %s, a link-local address, which exists once on each interface: write %v%%DEV, with the interface's name for DEV", e.name, quote(s), a)
		return a, r.lenient
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

// isDNSName reports whether a text is a host name (RFC 1123 section 2.1) and does not
// look like an IPv4 address.
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

// nameCharacters are the characters of host names, and the underscore that some use.
const nameCharacters = "-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
