package mechanism

import (
	"encoding/hex"
	"net/netip"
	"strings"

	"sixfour/encap/resolve"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
	"sixfour/internal/text"
)

// sixRD holds the keys of mode 6rd.
type sixRD struct {
	resolve.SixRD
	common netip.Prefix // the IPv4 bits that all customers have in common
}

func readMaskLen(r *problem.Report, e tree.Entry, m *sixRD) {
	if n, err := value.ParseInt(e.Text); e.Kind == tree.Integer && err == nil && n == 32 {
		r.Add(e.At, "mask_len is 32, which leaves no bits of the IPv4 address to tell customers apart: it must be from 0 to 31")
		return
	}
	if n, _, ok := value.Number(r, e, 0, 31); ok {
		m.MaskLen = int(n)
	}
}

func readRole6rd(r *problem.Report, e tree.Entry, m *sixRD) {
	m.Role = roleOf(r, e, []resolve.Role{resolve.RoleCE, resolve.RoleBR})
}

// readOption212 reads DHCPv4's option for a 6rd domain. It ignores the colons and spaces
// that some programs print.
func readOption212(r *problem.Report, e tree.Entry, m *sixRD) {
	const want = `option 212 of DHCPv4 as hexadecimal digits, such as "082020010db80000000000000000000000000a000001"`
	digits, ok := value.String(r, e, want)
	if !ok {
		return
	}
	b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(digits))
	if err != nil || len(b) == 0 {
		value.Refuse(r, e, want)
		return
	}
	role := m.Role
	if m.SixRD, err = resolve.ParseOption212(b); err != nil {
		r.Add(e.At, "option212 is %s: %s: ask for what the DHCP server sent", problem.Quote(digits), text.Clean(strings.TrimPrefix(err.Error(), "6rd option: ")))
	}
	if role != "" {
		m.Role = role
	}
}

func (m *sixRD) finish(r *problem.Report, t *Tunnel) resolve.Mechanism {
	from := "prefix"
	if t.State.Set["option212"] {
		from = "option212"
		for _, name := range []string{"prefix", "mask_len", "border_relay"} {
			if at, given := t.Values[name]; given {
				r.Add(at, "%s contradicts option212, which has it, too: leave one of them out", name)
				from = ""
			}
		}
	} else {
		t.need(r, "prefix", `the IPv6 prefix of the 6rd domain, such as "2001:db8::/32"`)
	}
	switch {
	case m.Role == "" && len(m.Relays) > 0:
		m.Role = resolve.RoleCE
	case m.Role == "":
		m.Role = resolve.RoleBR
	case m.Role == resolve.RoleCE && !t.State.Set["option212"]:
		t.need(r, "border_relay", `the border relay's IPv4 address or its DNS name, or set role to "br"`)
	}
	m.finishCommon(r, t)
	if from == "" || !t.State.Good(from) || t.State.Bad["mask_len"] {
		return m.SixRD
	}
	bits := 32 - m.MaskLen
	switch n := m.Prefix.Bits() + bits; {
	case bits == 0:
		r.Add(t.Values[from], "%s has an IPv4MaskLen of 32, which leaves no bits of the IPv4 address to tell customers apart: it must be from 0 to 31", from)
	case n > 64:
		r.Add(t.Values[from], "%s has %v, and with %d bits of IPv4 addresses a customer's prefix would be /%d, longer than /64: choose a shorter prefix, or a larger mask length",
			from, m.Prefix, bits, n)
	}
	return m.SixRD
}

// finishCommon takes the common bits and their number from v4_common. They cannot come
// from the local address of a border relay, which differs from those of its customers.
func (m *sixRD) finishCommon(r *problem.Report, t *Tunnel) {
	if !m.common.IsValid() {
		return
	}
	if _, given := t.Values["mask_len"]; !given && !t.State.Set["option212"] {
		m.MaskLen = m.common.Bits()
	}
	if m.MaskLen != m.common.Bits() && !t.State.Bad["mask_len"] && !t.State.Bad["option212"] {
		r.Add(t.Values["v4_common"], "v4_common is %v, but %d bits of the IPv4 address are left out: give it that prefix length", m.common, m.MaskLen)
	}
	m.Common = m.common.Addr()
}
