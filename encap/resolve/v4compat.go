package resolve

import (
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// V4Compat is automatic tunnelling (RFC 2893 section 5, which RFC 4213 withdrew). Hosts
// with addresses ::V4ADDR/96 reach each other directly, and no other hosts. Each inner
// address must embed the outer one. A different embedded address is drop.Spoof; an inner
// address that embeds none is drop.ForeignSource or drop.NoPeer. Link-local and
// multicast addresses embed none.
type V4Compat struct{}

// Hosts returns nothing: there are no relays.
func (V4Compat) Hosts() []Host { return nil }

// Resolver returns the resolver for a site with any IPv4 address.
func (V4Compat) Resolver(at Site) (Resolver, error) {
	p, err := newPlace(at, "v4compat")
	if err != nil {
		return nil, err
	}
	return &v4compat{p}, nil
}

type v4compat struct{ place }

// Compatible makes v4compat a CompatibleResolver.
func (*v4compat) Compatible() {}

func (r *v4compat) To(inner []byte) (Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	src, to := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	dst := uint32(to.Lo)
	switch {
	case !isCompat(to):
		return Endpoint{}, drop.NoPeer
	case !r.reachable4(dst): // also :: and ::1
		return Endpoint{}, drop.Martian
	case r.mine(dst):
		return Endpoint{}, drop.Loop
	case src != header.Word6{Lo: uint64(r.local)}:
		return Endpoint{}, drop.Spoof
	}
	return Endpoint4(dst), drop.None
}

func (r *v4compat) From(from, at Endpoint, b []byte) drop.Reason {
	inner := header.IPv6(b)
	src, to, src4 := header.ReadWord6(inner.Source()), header.ReadWord6(inner.Dest()), from.IPv4()
	switch {
	case !r.reachable4(src4):
		return drop.Martian
	case !isCompat(src):
		return drop.ForeignSource
	case r.mine(uint32(src.Lo)), slices.Contains(r.own6, src):
		return drop.OwnSource
	case uint32(src.Lo) != src4, !isCompat(to), uint32(to.Lo) != at.IPv4():
		return drop.Spoof
	}
	return drop.None
}

// Warnings says that new networks should not use this mechanism.
func (V4Compat) Warnings() []string {
	return []string{"automatic tunnels with ::/96 were withdrawn (RFC 4213): only old hosts still speak it"}
}
