// Package address explains the addresses of automatic tunnels both ways: which
// IPv6 prefix or address an IPv4 address has under a mechanism, and which IPv4
// address hides in an IPv6 one.
package address

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sixfour/encap/mape"
	"sixfour/encap/resolve"
)

// Mechanisms are the names that Explain knows.
var Mechanisms = []string{"6to4", "6rd", "isatap", "teredo", "6bed4", "6a44", "map_e", "v4compat"}

// Options are what a mechanism needs besides an address; what it does not need is
// ignored.
type Options struct {
	Prefix      netip.Prefix // 6rd: the domain's; isatap: the link's, /64; 6bed4: the router's, /64; 6a44: the provider's, /48
	MaskLen     int          // 6rd: IPv4 bits that are left out
	BorderRelay netip.Addr   // 6rd
	Common      netip.Addr   // 6rd: an IPv4 address with the bits that are left out; zero: the border relay
	Server      netip.Addr   // teredo: with Port, for a client's address
	Port        uint16       // teredo, 6bed4: outside the NAT; map_e: one of the ports of the customer edge
	Rule        *mape.Rule   // map_e
}

// Answer is what an address means under one mechanism. Which fields are set
// depends on the mechanism and on the question.
type Answer struct {
	Mechanism string       `json:"mechanism"`
	Asked     netip.Addr   `json:"asked"`
	IPv4      netip.Addr   `json:"ipv4"`    // invalid: the address has none in it
	Martian   bool         `json:"martian"` // of the IPv4 address: it is not globally unique
	Prefix    netip.Prefix `json:"prefix,omitzero"`
	IPv6      netip.Addr   `json:"ipv6,omitzero"`
	LinkLocal netip.Addr   `json:"link_local,omitzero"`

	BorderRelay netip.Addr `json:"border_relay,omitzero"` // 6rd
	Subnet      *uint16    `json:"subnet,omitempty"`      // 6to4

	Server        netip.Addr `json:"server,omitzero"` // teredo; 6bed4: the router
	ServerMartian bool       `json:"server_martian,omitempty"`
	Port          uint16     `json:"port,omitempty"`
	Flags         string     `json:"flags,omitempty"`
	Cone          *bool      `json:"cone,omitempty"`

	Sharing *Sharing `json:"sharing,omitempty"` // 6a44, map_e
}

// Explain answers for one mechanism, or, if that is empty, for each that fits.
func Explain(mechanism, text string, o Options) ([]Answer, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return nil, fmt.Errorf("%q is not an address: give an IPv4 or IPv6 address", text)
	}
	if a.Is4In6() {
		return nil, fmt.Errorf("%v is an IPv4 address written as an IPv6 one, which no tunnel uses: give %v", a, a.Unmap())
	}
	a = a.WithZone("")
	if mechanism != "" {
		explain, ok := explainers[mechanism]
		if !ok {
			return nil, fmt.Errorf("unknown mechanism %q: use one of %s", mechanism, strings.Join(Mechanisms, ", "))
		}
		answer, err := explain(a, o)
		if err != nil {
			return nil, err
		}
		return []Answer{finish(answer, mechanism, a)}, nil
	}
	return explainAll(a, o)
}

func explainAll(a netip.Addr, o Options) (out []Answer, err error) {
	if a.Is6() && o.Prefix.IsValid() && o.Prefix.Bits() < 48 && o.Prefix.Contains(a) { // only now it can be 6rd
		if _, err := sixRD(a, o); err != nil && !errors.Is(err, errOther) {
			return nil, err
		}
	}
	for _, m := range Mechanisms {
		if m == "6rd" && !o.Prefix.IsValid() {
			continue
		}
		if answer, err := explainers[m](a, o); err == nil {
			out = append(out, finish(answer, m, a))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%v has no IPv4 address in it by 6to4, isatap, teredo, 6bed4 or v4compat; for 6rd and 6a44 give the --prefix, and for map_e the --rule", a)
	}
	return out, nil
}

func finish(answer Answer, mechanism string, asked netip.Addr) Answer {
	answer.Mechanism, answer.Asked = mechanism, asked
	answer.Martian = answer.IPv4.IsValid() && martian(answer.IPv4)
	answer.ServerMartian = answer.Server.IsValid() && martian(answer.Server)
	return answer
}

func martian(a netip.Addr) bool {
	b := a.As4()
	return resolve.Martian4(binary.BigEndian.Uint32(b[:]), false)
}

// errOther marks an address that is another mechanism's.
var errOther = errors.New("not an address of this mechanism")

// other is an error that says of what kind an address should have been.
func other(format string, args ...any) error { return otherError{fmt.Sprintf(format, args...)} }

type otherError struct{ text string }

func (e otherError) Error() string        { return e.text }
func (e otherError) Is(target error) bool { return target == errOther }

var explainers = map[string]func(a netip.Addr, o Options) (Answer, error){
	"6to4":     sixToFour,
	"6rd":      sixRD,
	"isatap":   isatap,
	"teredo":   teredo,
	"6bed4":    sixBed4,
	"6a44":     sixA44,
	"map_e":    mapE,
	"v4compat": v4compat,
}

// embedded is the IPv4 address that an IPv6 address has in it by a scheme.
func embedded(a netip.Addr, s resolve.Scheme) (netip.Addr, bool) {
	list := resolve.Embedded(a)
	at := slices.IndexFunc(list, func(e resolve.Embedding) bool { return e.Scheme == s })
	if at < 0 {
		return netip.Addr{}, false
	}
	return list[at].Addr, true
}

func sixToFour(a netip.Addr, _ Options) (Answer, error) {
	if a.Is4() {
		return Answer{IPv4: a, Prefix: resolve.Prefix6to4(a)}, nil
	}
	v4, ok := embedded(a, resolve.Scheme6to4)
	if !ok {
		return Answer{}, other("%v is not a 6to4 address: those are in 2002::/16", a)
	}
	b := a.As16()
	subnet := binary.BigEndian.Uint16(b[6:])
	return Answer{IPv4: v4, Prefix: resolve.Prefix6to4(v4), Subnet: &subnet}, nil
}

func sixRD(a netip.Addr, o Options) (Answer, error) {
	if !o.Prefix.IsValid() {
		return Answer{}, errors.New("6rd: which domain? give its --prefix, such as 2001:db8::/32, and --mask-len")
	}
	m := resolve.SixRD{Prefix: o.Prefix, MaskLen: o.MaskLen, Common: o.Common}
	v4 := a
	if a.Is6() {
		if !m.Common.IsValid() {
			m.Common = o.BorderRelay
		}
		if !o.Prefix.Contains(a) {
			return Answer{}, other("%v is not in the 6rd prefix %v", a, o.Prefix)
		}
		if o.MaskLen > 0 && !m.Common.IsValid() {
			return Answer{}, fmt.Errorf("6rd: the first %d bits of the IPv4 address are not in %v: give an address that begins with them as --common, or the --border-relay if it does", o.MaskLen, a)
		}
		v4, _ = m.IPv4(a)
	}
	if !v4.IsValid() { // then the domain is impossible, and Delegated says why
		v4 = netip.IPv4Unspecified()
	}
	p, err := m.Delegated(v4)
	if err != nil {
		return Answer{}, err
	}
	return Answer{IPv4: v4, Prefix: p, BorderRelay: o.BorderRelay}, nil
}

var linkLocal = netip.MustParsePrefix("fe80::/64")

func isatap(a netip.Addr, o Options) (Answer, error) {
	v4 := a
	if a.Is6() {
		var ok bool
		if v4, ok = embedded(a, resolve.SchemeISATAP); !ok {
			return Answer{}, other("%v is not an ISATAP address: its last 64 bits would be 0:5efe: or 200:5efe: and an IPv4 address", a)
		}
		p, _ := a.Prefix(64)
		return Answer{IPv4: v4, Prefix: p, LinkLocal: resolve.AddressISATAP(linkLocal, v4)}, nil
	}
	answer := Answer{IPv4: v4, LinkLocal: resolve.AddressISATAP(linkLocal, v4)}
	if o.Prefix.IsValid() {
		if o.Prefix.Bits() != 64 || !o.Prefix.Addr().Is6() {
			return Answer{}, fmt.Errorf("isatap: prefix %v: addresses have an identifier of 64 bits, so give an IPv6 /64", o.Prefix)
		}
		answer.Prefix, answer.IPv6 = o.Prefix.Masked(), resolve.AddressISATAP(o.Prefix, v4)
	}
	return answer, nil
}

// teredo takes an IPv4 address for a server, unless a server is given: then it is
// a client's.
func teredo(a netip.Addr, o Options) (Answer, error) {
	if a.Is4() {
		if !o.Server.IsValid() && o.Port == 0 {
			p, _ := resolve.Teredo{Server: a, Client: netip.AddrPortFrom(netip.IPv4Unspecified(), 0)}.Addr().Prefix(64)
			return Answer{IPv4: a, Prefix: p, Server: a}, nil
		}
		if !o.Server.Is4() || o.Port == 0 {
			return Answer{}, errors.New("teredo: a client's address has its server's IPv4 address and its own outside port in it: give both, --server and --port")
		}
		a = resolve.Teredo{Server: o.Server, Client: netip.AddrPortFrom(a, o.Port)}.Addr()
	}
	t, ok := resolve.ParseTeredo(a)
	if !ok {
		return Answer{}, other("%v is not a Teredo address: those are in 2001::/32", a)
	}
	p, _ := a.Prefix(64)
	cone := t.Cone()
	return Answer{IPv4: t.Client.Addr(), IPv6: a, Prefix: p, Server: t.Server,
		Port: t.Client.Port(), Flags: fmt.Sprintf("0x%04x", t.Flags), Cone: &cone}, nil
}

func v4compat(a netip.Addr, _ Options) (Answer, error) {
	if a.Is4() {
		return Answer{IPv4: a, IPv6: resolve.AddressCompat(a)}, nil
	}
	v4, ok := embedded(a, resolve.SchemeCompat)
	if !ok {
		return Answer{}, other("%v is not an IPv4-compatible address: those are in ::/96, except :: and ::1", a)
	}
	return Answer{IPv4: v4, IPv6: a}, nil
}
