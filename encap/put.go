package encap

import (
	"encoding/binary"

	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// fields are the values that a delivery header copies from the packet inside.
type fields struct {
	tos, ttl byte
	df       bool // IPv4 only
}

// fieldsOf reads the fields from a header.
func fieldsOf(pkt []byte) fields {
	if header.Version(pkt) == 4 {
		ip := header.IPv4(pkt)
		return fields{tos: ip.TOS(), ttl: ip.TTL(), df: !ip.MayFragment()}
	}
	ip := header.IPv6(pkt)
	return fields{tos: ip.TrafficClass(), ttl: ip.HopLimit()}
}

// put writes the headers in front of the inner packet b[off:] and returns where they
// begin. The packet continues for tail bytes elsewhere and must be within the limit. If
// the template is unfinished, finish must follow.
func (t *template) put(b []byte, off, tail int, f fields) (int, drop.Reason) {
	start := off - t.size
	if from := t.head; from != nil { // loads into registers: an array assignment would call memmove
		to := (*[short]byte)(b[off-short:])
		binary.NativeEndian.PutUint64(to[0:], binary.NativeEndian.Uint64(from[0:]))
		binary.NativeEndian.PutUint64(to[8:], binary.NativeEndian.Uint64(from[8:]))
		binary.NativeEndian.PutUint64(to[16:], binary.NativeEndian.Uint64(from[16:]))
		binary.NativeEndian.PutUint64(to[24:], binary.NativeEndian.Uint64(from[24:]))
		binary.NativeEndian.PutUint64(to[32:], binary.NativeEndian.Uint64(from[32:]))
		binary.NativeEndian.PutUint64(to[40:], binary.NativeEndian.Uint64(from[40:]))
		binary.NativeEndian.PutUint64(to[48:], binary.NativeEndian.Uint64(from[48:]))
		binary.NativeEndian.PutUint64(to[56:], binary.NativeEndian.Uint64(from[56:]))
		binary.NativeEndian.PutUint64(to[64:], binary.NativeEndian.Uint64(from[64:]))
	} else {
		copy(b[start:off], t.bytes)
	}
	end := off // end of the header that is written next
	for i := range t.parts {
		p := &t.parts[i]
		f.tos = f.tos&p.keep | p.set
		if p.ttl != InheritTTL {
			f.ttl = p.ttl
		}
		n := len(b) - end + tail + p.size // length from this header on
		if p.over == 6 {
			h := (*[header.IPv6Len]byte)(b[end-p.size:])
			word := 6<<28 | uint32(f.tos)<<20
			if p.label.Source == FlowLabelFixed {
				word |= p.label.Fixed
			} else {
				word |= p.label.of(b[end:], p.carries)
			}
			binary.BigEndian.PutUint32(h[0:], word)
			binary.BigEndian.PutUint16(h[4:], uint16(n-header.IPv6Len))
			h[7] = f.ttl
			if p.resolver != nil {
				if r := p.resolve6(b[end-p.size:], n); r != drop.None {
					return 0, r
				}
			}
		} else {
			h := (*[header.IPv4Len]byte)(b[end-p.size:])
			sum := p.sum
			if p.plain {
				f.df = true
			} else {
				var r drop.Reason
				if sum, f.df, r = p.vary(h, b[end-p.size:], n, f.df); r != drop.None {
					return 0, r
				}
			}
			sum += uint32(f.tos) + uint32(n) + uint32(f.ttl)<<8
			h[1] = f.tos
			binary.BigEndian.PutUint16(h[2:], uint16(n))
			h[8] = f.ttl
			binary.BigEndian.PutUint16(h[10:], ^header.Fold(sum))
		}
		end -= p.size
	}
	return start, drop.None
}

// putBeside is put with the template for packets of form 1, which it also returns. Templates
// of parts of a stack have none.
func (t *template) putBeside(b []byte, off, tail int, f fields) (*template, int, drop.Reason) {
	if t.beside == nil {
		return t, 0, drop.NoRoute
	}
	start, r := t.beside.put(b, off, tail, f)
	return t.beside, start, r
}

// encapsulate calls put and finish for a packet that continues with tail. Limit is the
// packet's encapsulation limit, for templates that use it.
func (t *template) encapsulate(b []byte, off int, tail []byte, f fields, limit byte) (int, drop.Reason) {
	start, r := t.put(b, off, len(tail), f)
	if r == otherForm {
		t, start, r = t.putBeside(b, off, len(tail), f)
	}
	if r == drop.None && t.unfinished {
		t.finish(b, off, tail, limit, false)
	}
	return start, r
}

// finish writes the fields that put leaves out, innermost header first, because the
// checksum in an outer header covers everything inside it. Unsummed leaves out the checksum
// of the outermost header if that is of UDP, without extension headers before it.
func (t *template) finish(b []byte, off int, tail []byte, limit byte, unsummed bool) {
	end := off
	for i := range t.parts {
		p := &t.parts[i]
		if p.limited {
			limit--
			b[end-p.size+limitOffset] = limit
		}
		if p.finisher != nil {
			u, ok := p.finisher.(framing.Unsummer)
			if ok && unsummed && i == len(t.parts)-1 && (p.over == 4 || p.size-p.framing == header.IPv6Len) {
				u.FinishUnsummed(b[end-p.size:], p.size-p.framing, tail)
			} else {
				p.finisher.Finish(b[end-p.size:], p.size-p.framing, tail)
			}
		}
		end -= p.size
	}
}

// vary writes the fields that only some IPv4 headers need for each packet: destination,
// DF and identification. The packet has n bytes and begins with pkt; df is the DF of the
// packet inside. vary returns the sum of the other words of the header, and whether DF is set.
func (p *part) vary(h *[header.IPv4Len]byte, pkt []byte, n int, df bool) (sum uint32, set bool, r drop.Reason) {
	sum, rule := p.sum, p.df
	if p.resolver != nil {
		if sum, rule, r = p.resolve(pkt, n); r != drop.None {
			return 0, false, r
		}
	}
	switch {
	case rule == dfSet: // the template has it
		return sum, true, drop.None
	case rule == dfInner && df, rule == dfLarge && n > int(MinTunnelMTU6):
		binary.BigEndian.PutUint16(h[6:], header.DF)
		return sum + header.DF, true, drop.None
	}
	id := p.record.nextID4()
	binary.BigEndian.PutUint16(h[4:], id)
	return sum + uint32(id), false, drop.None
}

// resolve writes the destination that the resolver finds into the IPv4 header of a packet of
// n bytes, which begins with pkt, and into a framing's header with ports. It returns the sum
// of the other words of the header, and the DF rule for this destination.
func (p *part) resolve(pkt []byte, n int) (sum uint32, rule fragmentation, r drop.Reason) {
	h := (*[header.IPv4Len + 4]byte)(pkt) // with ports, or the beginning of what is carried
	to, r := p.resolver.To(pkt[p.size:])
	if r != drop.None {
		return 0, 0, r
	}
	if !to.IsPlain4() {
		if p.beside && to.Form == 1 {
			return 0, 0, otherForm
		}
		return 0, 0, drop.NoRoute
	}
	dst := to.IPv4()
	binary.BigEndian.PutUint32(h[16:], dst)
	if p.ported {
		binary.BigEndian.PutUint16(h[header.IPv4Len+2:], to.Port)
	}
	sum, rule = p.sum+dst>>16+dst&0xffff, p.df
	if rule != dfSet || p.record.destMTUs.empty() {
		return sum, rule, drop.None
	}
	if mtu := p.record.mtuTo(to); mtu != 0 {
		least := int(MinTunnelMTU6) + header.IPv4Len
		switch {
		case n > max(int(mtu), least):
			return 0, 0, drop.TooBig
		case int(mtu) < least: // RFC 4213 section 3.2.2
			binary.BigEndian.PutUint16(h[6:], 0)
			sum, rule = sum+(0xffff-header.DF), dfClear
		}
	}
	return sum, rule, drop.None
}

// resolve6 is resolve for an IPv6 header.
func (p *part) resolve6(pkt []byte, n int) drop.Reason {
	to, r := p.resolver.To(pkt[p.size:])
	if r != drop.None {
		return r
	}
	if !to.IsPlain6() {
		return drop.NoRoute
	}
	dst := to.IPv6()
	binary.BigEndian.PutUint64(pkt[24:], dst.Hi)
	binary.BigEndian.PutUint64(pkt[32:], dst.Lo)
	if p.ported {
		binary.BigEndian.PutUint16(pkt[p.size-p.framing+2:], to.Port)
	}
	if p.whole || p.record.destMTUs.empty() {
		return drop.None
	}
	if mtu := p.record.mtuTo(to); mtu != 0 && n > max(int(mtu), int(MinTunnelMTU6)) {
		return drop.TooBig
	}
	return drop.None
}
