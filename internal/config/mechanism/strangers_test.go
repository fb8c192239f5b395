package mechanism_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"sixfour/encap/agent/agenttest"
	"sixfour/encap/header"
	"sixfour/encap/lisp"
	"sixfour/encap/mape"
	"sixfour/encap/nd"
	"sixfour/encap/sixa44"
	"sixfour/encap/sixbed4"
	"sixfour/encap/teredo"
)

// stranger returns an outer source: most are on the Internet, some pretend to be the server or
// router, and some have any address.
func (n *node) stranger(r *rand.Rand) netip.AddrPort {
	a := [4]byte{byte(1 + r.IntN(9)), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}
	switch k := r.IntN(10); {
	case k == 0 && !n.trusting:
		port := map[string]uint16{"teredo": teredo.Port, "6a44": sixa44.Port, "6bed4": sixbed4.Port}[n.mode]
		return netip.AddrPortFrom(netip.MustParseAddr(other), port)
	case k == 1:
		a[0] = byte(r.Uint32())
	}
	return netip.AddrPortFrom(netip.AddrFrom4(a), uint16(1+r.IntN(1<<16-1)))
}

// hostile returns a packet of a stranger: one of the mechanism, or one of it that was damaged, and
// often has right checksums nevertheless.
func (n *node) hostile(r *rand.Rand) []byte {
	from, b := n.packets(r, n.stranger(r), n.me())
	switch k := r.IntN(8); {
	case k == 0:
		b = b[:r.IntN(len(b)+1)]
	case k == 1:
		b = append(b, make([]byte, r.IntN(40))...)
	case k < 4 && len(b) > 0:
		for range 1 + r.IntN(3) {
			b[r.IntN(len(b))] = byte(r.Uint32())
		}
		repair(b)
	}
	return n.outer(from, n.local, b)
}

// repair writes the checksum of an ICMPv6 message.
func repair(b []byte) {
	if len(b) < header.IPv6Len+8 || b[0]>>4 != 6 || b[6] != header.ICMPv6 {
		return
	}
	b[42], b[43] = 0, 0
	binary.BigEndian.PutUint16(b[42:], ^header.Sum(b[40:], header.PseudoSum(b[8:24], b[24:40], len(b)-40, header.ICMPv6)))
}

// ip4 returns an IPv4 packet. Fragment is the fourth word of its header.
func ip4(src, dst netip.Addr, protocol byte, id, fragment uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(header.IPv4Len+len(payload)))
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, id), fragment)
	b = append(b, 64, protocol, 0, 0)
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	header.IPv4(b).SetChecksum()
	return append(b, payload...)
}

func ip6(src, dst netip.Addr, next byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(payload)))
	b = append(b, next, 64)
	return append(append(append(b, src.AsSlice()...), dst.AsSlice()...), payload...)
}

func v4(a netip.AddrPort) uint64 { b := a.Addr().As4(); return uint64(binary.BigEndian.Uint32(b[:])) }

// anyOf returns one of some addresses.
func anyOf(r *rand.Rand, list ...header.Word6) header.Word6 { return list[r.IntN(len(list))] }

var native = agenttest.IP6("2001:db8:ff::80")

func packets6to4(r *rand.Rand, from netip.AddrPort, me header.Word6) (netip.AddrPort, []byte) {
	src := header.Word6{Hi: 0x2002<<48 | v4(from)<<16, Lo: r.Uint64()}
	dst := anyOf(r, native, agenttest.IP6("2002:c633:6409::1"), header.Word6{Hi: 0x2002<<48 | uint64(r.Uint32())<<16, Lo: 1})
	return from, agenttest.UDP(anyOf(r, src, native), dst, "6to4")
}

func packetsPMT(r *rand.Rand, from netip.AddrPort, me header.Word6) (netip.AddrPort, []byte) {
	return packets6to4(r, netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64 + byte(r.IntN(64)), byte(r.Uint32()), 1}), 0), me)
}

func packets6rd(r *rand.Rand, from netip.AddrPort, me header.Word6) (netip.AddrPort, []byte) {
	src := header.Word6{Hi: 0x20010db8<<32 | v4(from), Lo: r.Uint64()}
	return from, agenttest.UDP(anyOf(r, src, agenttest.IP6("2400::1")), anyOf(r, agenttest.IP6("2001:db8:c633:6409::1"), native), "6rd")
}

func packetsCompatible(r *rand.Rand, from netip.AddrPort, me header.Word6) (netip.AddrPort, []byte) {
	return from, agenttest.UDP(header.Word6{Lo: v4(from)}, header.Word6{Lo: 0xc6336409 ^ uint64(r.IntN(2))}, "compatible")
}

// discovery returns a message of neighbour discovery.
func discovery(r *rand.Rand, src, me netip.Addr) []byte {
	target := me
	if r.IntN(3) == 0 {
		target = header.Word6{Hi: 0xfe80 << 48, Lo: r.Uint64()}.Addr()
	}
	m := nd.Message{Target: target, Type: nd.NeighborSolicitation}
	switch r.IntN(4) {
	case 0:
		m = nd.Message{Type: nd.RouterSolicitation}
	case 1:
		m = nd.Message{Type: nd.RouterAdvertisement, Lifetime: time.Hour, Prefixes: []nd.Prefix{{
			Prefix: netip.PrefixFrom(header.Word6{Hi: 0x20010db8<<32 | uint64(r.Uint32())}.Addr(), 64), Auto: true, OnLink: true, Valid: time.Hour, Preferred: time.Hour,
		}}}
	case 2:
		m.Type, m.Solicited, m.Override = nd.NeighborAdvertisement, true, true
	}
	return nd.Append(nil, src, me, &m)
}

func packetsISATAP(r *rand.Rand, from netip.AddrPort, me header.Word6) (netip.AddrPort, []byte) {
	id := header.Word6{Hi: 0xfe80 << 48, Lo: 0x02005efe<<32 | v4(from)}
	return from, discovery(r, id.Addr(), netip.MustParseAddr("fe80::5efe:c633:6409"))
}

func packets6over4(r *rand.Rand, from netip.AddrPort, me header.Word6) (netip.AddrPort, []byte) {
	return from, discovery(r, header.Word6{Hi: 0xfe80 << 48, Lo: v4(from)}.Addr(), netip.MustParseAddr("fe80::c633:6409"))
}

func packetsTeredo(r *rand.Rand, from netip.AddrPort, me header.Word6) (netip.AddrPort, []byte) {
	server := agenttest.IP4(anyText(r, local, other))
	ours := teredo.Address(server, header.MappingOf(from), 0)
	dst := anyOf(r, me, teredo.Address(server, header.Mapping{Addr: r.Uint32(), Port: 7}, 0), native)
	switch r.IntN(6) {
	case 0:
		return from, teredo.AppendSolicitation(nil, anyOf(r, teredo.SolicitationSource, teredo.ConeSource))
	case 1:
		b := teredo.AppendOrigin(nil, header.MappingOf(from))
		return from, teredo.AppendAdvertisement(b, header.MappingOf(from), teredo.SolicitationSource)
	case 2:
		return from, teredo.AppendTest(nil, anyOf(r, ours, native), dst, [16]byte{})
	case 3:
		return from, teredo.AppendBubble(teredo.AppendOrigin(nil, header.Mapping{Addr: r.Uint32(), Port: uint16(r.Uint32())}), anyOf(r, ours, header.Word6{Hi: 0xfe80 << 48, Lo: r.Uint64()}), dst)
	case 4:
		return from, agenttest.UDP(anyOf(r, ours, native), dst, "teredo")
	}
	return from, teredo.AppendBubble(nil, anyOf(r, ours, header.Word6{Hi: 0xfe80 << 48, Lo: r.Uint64()}), dst)
}

func anyText(r *rand.Rand, list ...string) string { return list[r.IntN(len(list))] }

func packets6a44(r *rand.Rand, from netip.AddrPort, me header.Word6) (netip.AddrPort, []byte) {
	p := sixa44.Prefix{Provider: 0x20010db80044, At: header.MappingOf(from)}
	if r.IntN(2) == 0 {
		return from, sixa44.AppendBubble(nil, sixa44.Bubble{Prefix: p, ID: r.Uint64() & -uint64(r.IntN(2))})
	}
	o := sixa44.Prefix{Provider: 0x20010db80044, At: header.Mapping{Addr: r.Uint32(), Port: uint16(r.Uint32())}}
	return from, agenttest.UDP(anyOf(r, p.Address(1), o.Address(1), native), anyOf(r, me, o.Address(2), native), "6a44")
}

func packets6bed4(r *rand.Rand, from netip.AddrPort, me header.Word6) (netip.AddrPort, []byte) {
	const network = 0x20010db8_000b000b
	ours := sixbed4.Address(network, header.MappingOf(from), 1)
	at := header.Mapping{Addr: r.Uint32(), Port: uint16(r.Uint32())}
	switch r.IntN(5) {
	case 0:
		return from, nil
	case 1:
		return from, sixbed4.AppendSolicitation(nil, r.Uint64())
	case 2:
		return from, sixbed4.AppendAdvertisement(nil, network, at, sixbed4.NonceAddress(r.Uint64()).Addr())
	case 3:
		return from, discovery(r, ours.Addr(), netip.MustParseAddr("2001:db8:b:b::1"))
	}
	return from, agenttest.UDP(anyOf(r, ours, sixbed4.Address(network, at, 1), native), anyOf(r, me, sixbed4.Address(network, at, 1), native), "6bed4")
}

// packetsMAP returns packets of customers to a node, many of them fragments.
func packetsMAP(to string) func(r *rand.Rand, _ netip.AddrPort, _ header.Word6) (netip.AddrPort, []byte) {
	rule := mape.Rule{IPv6: netip.MustParsePrefix("2001:db8::/40"), IPv4: netip.MustParsePrefix("192.0.2.0/24"), EABits: 16, Ports: mape.Ports{Offset: mape.DefaultOffset}}
	return func(r *rand.Rand, _ netip.AddrPort, _ header.Word6) (netip.AddrPort, []byte) {
		var src, dst netip.Addr
		var from netip.AddrPort
		port := uint16(r.Uint32())
		if to == local6 { // from a customer
			e, err := rule.Edge(header.Word6{Hi: 0x20010db8<<32 | uint64(r.IntN(1<<16))<<8}.Addr())
			if err != nil {
				panic(err)
			}
			for ports := range e.Ports.Ranges() {
				port = ports.First
				break
			}
			from, src, dst = netip.AddrPortFrom(e.IPv6, 0), e.IPv4.Addr(), header.Mapping{Addr: 8<<24 | r.Uint32()>>8}.AddrPort().Addr()
			if r.IntN(3) == 0 {
				from, src, port = netip.AddrPortFrom(netip.MustParseAddr("2001:db8:a::1"), 0), netip.MustParseAddr("192.0.2.1"), 1024
			}
		} else {
			from, src = netip.AddrPortFrom(netip.MustParseAddr(local6), 0), header.Mapping{Addr: 8<<24 | r.Uint32()>>8}.AddrPort().Addr()
			dst = netip.MustParseAddr(anyText(r, "192.0.2.18", "192.0.2.1"))
		}
		udp := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, port), port)
		udp = append(binary.BigEndian.AppendUint16(udp, 1248), make([]byte, 1242)...)
		fragment := []uint16{0, 0x2000, 0x2006, 6}[r.IntN(4)] // whole, first, middle and last
		return from, ip4(src, dst, header.UDP, uint16(r.Uint32()), fragment, udp)
	}
}

// packetsLISP returns data packets of other sites and of proxies, and control messages.
func packetsLISP(r *rand.Rand, from netip.AddrPort, _ header.Word6) (netip.AddrPort, []byte) {
	addr := func(site int) header.Word6 {
		return header.Word6{Hi: 0x20010db800e0<<16 | uint64(site)<<16, Lo: uint64(r.IntN(1 << 20))}
	}
	site := lisp.EID{Prefix: netip.PrefixFrom(addr(r.IntN(4)).Addr(), 48).Masked()}
	mine := lisp.EID{Prefix: netip.MustParsePrefix("2001:db8:e1::/48")}
	locators := []netip.Addr{from.Addr(), netip.AddrFrom4([4]byte{9, 9, byte(r.Uint32()), byte(r.Uint32())})}[:1+r.IntN(2)]
	record := lisp.Record{TTL: r.Uint32(), EID: site, Locators: []lisp.Locator{{Priority: 1, Weight: 1, Flags: 1, Addr: from.Addr()}}}
	request := &lisp.Request{Probe: r.IntN(2) == 0, Nonce: r.Uint64(), Locators: locators, EIDs: []lisp.EID{mine}}
	switch r.IntN(7) {
	case 0:
		return from, request.Append(nil)
	case 1:
		request.Solicit, request.Source = true, site
		return from, request.Append(nil)
	case 2:
		request.Probe = false
		at := netip.AddrPortFrom(addr(2).Addr(), from.Port())
		return from, lisp.AppendInside(nil, at, netip.AddrPortFrom(mine.Prefix.Addr(), lisp.ControlPort), request.Append(nil))
	case 3:
		return from, (&lisp.Reply{Probe: r.IntN(2) == 0, Nonce: r.Uint64(), Records: []lisp.Record{record}}).Append(nil)
	case 4:
		m := &lisp.Registration{Type: lisp.TypeNotify, Nonce: r.Uint64(), Algorithm: lisp.SHA256, Records: []lisp.Record{record}}
		return from, m.Append(nil, []byte("no key"), false)
	case 5: // what hosts behind the interface send
		return from, agenttest.UDP(anyOf(r, addr(2), native), addr(1), "lisp")
	}
	return from, append(make([]byte, 8), agenttest.UDP(anyOf(r, addr(1), addr(2), native), anyOf(r, addr(1), native), "lisp")...)
}

// isLISPControl reports whether what packetsLISP has returned is a control message.
func isLISPControl(b []byte) bool { return len(b) > 0 && b[0] != 0 && b[0]>>4 != 6 }
