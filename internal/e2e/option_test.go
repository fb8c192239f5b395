package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/rig"
)

// withOption is an IPv6 packet with a destination option in front of its payload.
func withOption(src, dst netip.Addr, next, option byte, payload []byte) []byte {
	return ip6(src, dst, header.DestOptions, append([]byte{next, 0, option, 4, 0, 0, 0, 0}, payload...))
}

// parameterProblem returns the parameter problem in a received frame, if there is one.
func parameterProblem(f rig.Frame) (pkt header.IPv6, found bool) {
	p := f.Packet()
	if f.Outgoing { // this end's kernel has no tunnel
		return nil, false
	}
	if f.Type == 0x0800 && len(p) > header.IPv4Len && p[9] == header.ProtoIPv6 {
		p = p[header.IPv4Len:]
	} else if f.Type != 0x86dd {
		return nil, false
	}
	return p, len(p) > header.IPv6Len+icmp.HeaderLen && p[6] == header.ICMPv6 && p[header.IPv6Len] == icmp.Parameter6
}

// An unknown option causes Parameter Problem if the option requires that (RFC 8200 section
// 4.2): from the daemon for the layer inside IPv4, and from the kernel for an outermost
// IPv6 header.
func TestUnknownOption(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		a        string
		from, to netip.Addr
		next     byte
		inIPv4   bool
	}{
		{"4in6in4", configA(), in6B, in6A, header.ProtoIPv4, true},
		{"4in6in4 whose host is the daemon", configA(`address = ["10.0.0.1/30"]`), in6B, in6A, header.ProtoIPv4, true},
		{"gre6 in 6in4", kindStack.atA(), netip.MustParseAddr("fd00:6::2"), netip.MustParseAddr("fd00:6::1"), header.GRE, true},
		{"4in6", kind4in6.atA(), outer6B, outer6A, header.ProtoIPv4, false},
		{"6in6", kind6in6.atA(), outer6B, outer6A, header.ProtoIPv6, false},
		{"gre6", kindGRE6.atA(), outer6B, outer6A, header.GRE, false},
		{"4in6 through AF_XDP", kind4in6.atA() + "io = \"xdp\"\n", outer6B, outer6A, header.ProtoIPv4, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			a := start(t, h.a, c.a)
			wire, err := h.b.Capture("vb")
			must(t, err)
			defer wire.Close()
			here, err := h.b.MAC("vb")
			must(t, err)
			there, err := h.a.MAC("va")
			must(t, err)
			put := func(option byte, payload []byte) []byte {
				pkt, etherType := withOption(c.from, c.to, c.next, option, payload), uint16(0x86dd)
				if c.inIPv4 {
					pkt, etherType = ip4(outerB, outerA, header.ProtoIPv6, pkt), 0x0800
				}
				must(t, wire.Inject(rig.Ethernet(there, here, etherType, pkt)))
				return pkt
			}
			inner := ip4(inB, inA, experiment, make([]byte, 40))
			for _, option := range []byte{0x1e, 0x5e, 0x9e, 0xde} { // skip, drop, tell, tell
				pkt := put(option, inner)
				if option < 0x80 {
					continue
				}
				if c.inIPv4 {
					pkt = pkt[header.IPv4Len:]
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				f, err := wire.Find(ctx, func(f rig.Frame) bool { _, ok := parameterProblem(f); return ok })
				cancel()
				if err != nil {
					t.Fatalf("option %#x: %v", option, err)
				}
				got, _ := parameterProblem(f)
				m := got.Payload()
				if got.Src() != c.to || got.Dst() != c.from || m[1] != 2 || binary.BigEndian.Uint32(m[4:]) != header.IPv6Len+2 || !slices.Equal(m[icmp.HeaderLen:], pkt) ||
					header.Sum(m, header.PseudoSum(got.Source(), got.Dest(), len(m), header.ICMPv6)) != 0xffff {
					t.Errorf("option %#x: %x", option, got)
				}
			}
			if !c.inIPv4 {
				return
			}
			route := ip6(c.from, c.to, header.Routing, append([]byte{c.next, 0, 4, 1, 0, 0, 0, 0}, inner...))
			must(t, wire.Inject(rig.Ethernet(there, here, 0x0800, ip4(outerB, outerA, header.ProtoIPv6, route))))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := wire.Find(ctx, func(f rig.Frame) bool {
				p, ok := parameterProblem(f)
				return ok && p.Payload()[1] == 0 && binary.BigEndian.Uint32(p.Payload()[4:]) == header.IPv6Len+2
			}); err != nil {
				t.Errorf("a routing header: %v", err)
			}
			for range 500 {
				put(0x9e, inner)
			}
			eventually(t, "some are too many to answer", func() error {
				if _, s := a.status(t); s.ICMP.Limited < 400 || s.ICMP.SentTypes.Parameter < 2 {
					return fmt.Errorf("%+v", s.ICMP)
				}
				return nil
			})
		})
	}
}
