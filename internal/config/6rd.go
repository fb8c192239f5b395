package config

import (
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"sixfour/encap/resolve"
)

// sixRD holds the keys of mode 6rd.
type sixRD struct {
	resolve.SixRD
	common netip.Prefix // the IPv4 bits that all customers have in common
}

func readMaskLen(r *report, e entry, m *sixRD) {
	if n, err := parseInt(e.text); e.kind == unstable.Integer && err == nil && n == 32 {
		r.add(e.at, "mask_len is 32, which leaves no bits of the IPv4 address to tell customers apart: it must be from 0 to 31")
		return
	}
	if n, _, ok := numberOf(r, e, 0, 31); ok {
		m.MaskLen = int(n)
	}
}

func readRole6rd(r *report, e entry, m *sixRD) {
	m.Role = roleOf(r, e, []resolve.Role{resolve.RoleCE, resolve.RoleBR})
}

// readOption212 reads DHCPv4's option for a 6rd domain. It ignores the colons and spaces
// that some programs print.
func readOption212(r *report, e entry, m *sixRD) {
	const want = `option 212 of DHCPv4 as hexadecimal digits, such as "082020010db80000000000000000000000000a000001"`
	text, ok := stringOf(r, e, want)
	if !ok {
		return
	}
	b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(text))
	if err != nil || len(b) == 0 {
		refuse(r, e, want)
		return
	}
	role := m.Role
	if m.SixRD, err = resolve.ParseOption212(b); err != nil {
		r.add(e.at, "option212 is %s: %s: ask for what the DHCP server sent", quote(text), oneLine(strings.TrimPrefix(err.Error(), "6rd option: ")))
	}
	if role != "" {
		m.Role = role
	}
}

func (m *sixRD) finish(r *report, d *draft) resolve.Mechanism {
	from := "prefix"
	if d.state.set["option212"] {
		from = "option212"
		for _, name := range []string{"prefix", "mask_len", "border_relay"} {
			if at, given := d.values[name]; given {
				r.add(at, "%s contradicts option212, which says it, too: leave one of them out", name)
				from = ""
			}
		}
	} else {
		d.need(r, "prefix", `the IPv6 prefix of the 6rd domain, such as "2001:db8::/32"`)
	}
	switch {
	case m.Role == "" && len(m.Relays) > 0:
		m.Role = resolve.RoleCE
	case m.Role == "":
		m.Role = resolve.RoleBR
	case m.Role == resolve.RoleCE && !d.state.set["option212"]:
		d.need(r, "border_relay", `the border relay's IPv4 address or its DNS name, or set role to "br"`)
	}
	m.finishCommon(r, d)
	if from == "" || !d.state.good(from) || d.state.bad["mask_len"] {
		return m.SixRD
	}
	bits := 32 - m.MaskLen
	switch n := m.Prefix.Bits() + bits; {
	case bits == 0:
		r.add(d.values[from], "%s has an IPv4MaskLen of 32, which leaves no bits of the IPv4 address to tell customers apart: it must be from 0 to 31", from)
	case n > 64:
		r.add(d.values[from], "%s has %v, and with %d bits of IPv4 addresses a customer's prefix would be /%d, longer than /64: choose a shorter prefix, or a larger mask length",
			from, m.Prefix, bits, n)
	}
	return m.SixRD
}

// finishCommon takes the common bits and their number from v4_common. They cannot come
// from the local address of a border relay, which differs from those of its customers.
func (m *sixRD) finishCommon(r *report, d *draft) {
	if !m.common.IsValid() {
		return
	}
	if _, given := d.values["mask_len"]; !given && !d.state.set["option212"] {
		m.MaskLen = m.common.Bits()
	}
	if m.MaskLen != m.common.Bits() && !d.state.bad["mask_len"] && !d.state.bad["option212"] {
		r.add(d.values["v4_common"], "v4_common is %v, but %d bits of the IPv4 address are left out: give it that prefix length", m.common, m.MaskLen)
	}
	m.Common = m.common.Addr()
}
