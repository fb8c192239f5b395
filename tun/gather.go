package tun

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// Gatherer collects packets for a queue and writes them. It writes consecutive packets
// of one TCP or UDP flow as one super-packet, because the kernel does most of its work
// once per write. It is not safe for concurrent use.
//
// The packets of a flow keep their order. A packet that cannot be part of a super-packet
// closes the super-packet of its flow, because a packet that is added to it later would
// overtake this one. Fragments and packets with IPv6 extension headers do not show their
// flow: they close all super-packets between their addresses.
//
// A packet can arrive in a tunnel with a partial transport checksum: the field holds
// only the sum of the pseudo-header, and a network card was to complete it. The peer's
// kernel leaves it so on virtual links (virtio, veth). The GRO of our own card does too,
// when it merges packets of a flow before a raw socket receives them (see AddMerged).
// Such a packet is written to the kernel with a partial checksum.
type Gatherer struct {
	mtu     int // of the interface; larger packets are cut
	items   []item
	groups  []group
	last    [256]int16 // by a hash of the flow: its latest group + 1
	ended   [256]int16 // by a hash of the addresses: the first group that may still grow
	iovs    []unix.Iovec
	vnet    [VirtioLen]byte
	refused []int16
	saved   [maxGathered]byte // the first packet's headers, while they are replaced by those of a super-packet
	cut     []byte            // the headers of a segment, once one was cut off
}

// item is one packet. next is the next packet of its flow in the same group, or
// negative.
type item struct {
	pkt  []byte
	next int16
}

// group is what one write carries.
type group struct {
	first, last int16 // items
	count       int
	size        int // bytes in all
	flow        flow
	segment     int  // payload of all packets but the last, in bytes
	merged      int  // the same, for a single packet that the kernel has merged; 0: it has not
	idStep      byte // difference of the IPv4 identifications of consecutive packets: 0 or 1
	verified    bool // the first packet's checksum was verified
	closed      bool // no packet may be added
}

// flow holds what a Gatherer needs from a packet's headers.
type flow struct {
	kind      byte  // type of a super-packet of such packets: VIRTIO_NET_HDR_GSO_*; 0: never part of one
	partial   bool  // the checksum is partial
	transport int   // offset of the transport header
	headers   int   // length of all headers
	checksum  int   // offset of the checksum in the transport header
	pair      uint8 // a hash of the addresses
	hash      uint8 // a hash of the addresses and, if the packet shows them, protocol and ports
	ports     bool
}

// maxGathered is the longest length of headers of packets that are gathered: no IP
// options and no extension headers, all TCP options.
const maxGathered = header.IPv6Len + 60

// maxSuper is the largest packet that can be written.
const maxSuper = 65535

// NewGatherer returns a gatherer for up to capacity packets between two Writes, to an
// interface of the given MTU.
func NewGatherer(capacity, mtu int) *Gatherer {
	return &Gatherer{
		mtu:    mtu,
		items:  make([]item, 0, capacity),
		groups: make([]group, 0, capacity),
		iovs:   make([]unix.Iovec, 0, capacity+1), // one more for the virtio header
	}
}

// Len returns how many packets wait for Write.
func (g *Gatherer) Len() int { return len(g.items) }

// Add adds one packet, which header.Parse has accepted. The packet's memory must stay
// unchanged until Write, which may change its headers. At most capacity packets may be
// added.
func (g *Gatherer) Add(pkt []byte) { g.add(pkt, parseFlow(pkt), 0) }

// add adds a packet. merged is the payload of each segment in bytes if the kernel has
// merged the packet, and otherwise 0.
func (g *Gatherer) add(pkt []byte, f flow, merged int) {
	i := int16(len(g.items))
	g.items = append(g.items, item{pkt, -1})
	if f.kind != 0 && !f.partial && merged == 0 {
		if last := g.last[f.hash]; last > g.ended[f.pair] && g.join(&g.groups[last-1], i, &f) {
			return
		}
	}
	if f.ports {
		g.last[f.hash] = int16(len(g.groups) + 1)
	} else {
		g.ended[f.pair] = int16(len(g.groups) + 1)
	}
	n := group{first: i, last: i, count: 1, size: len(pkt), flow: f, segment: len(pkt) - f.headers}
	n.merged = merged
	n.closed = f.kind == 0 || f.partial || merged > 0 || f.isTCP() && pkt[f.transport+tcpFlags] != tcpACK && pkt[f.transport+tcpFlags] != tcpACK|tcpECE
	g.groups = append(g.groups, n)
}

func (f *flow) isTCP() bool { return f.checksum == tcpChecksum }

// parseFlow finds the transport header of a packet, and determines whether the packet
// can be part of a super-packet: it must be whole TCP or UDP with payload, without IP
// options and extension headers.
func parseFlow(pkt []byte) (f flow) {
	var src, dst []byte
	var protocol byte
	kind := byte(unix.VIRTIO_NET_HDR_GSO_TCPV4)
	plain := true
	if header.Version(pkt) == 4 {
		ip := header.IPv4(pkt)
		plain = ip.HeaderLen() == header.IPv4Len
		f.transport, protocol, src, dst = ip.HeaderLen(), ip.Protocol(), ip.Source(), ip.Dest()
		if ip.IsFragment() {
			protocol = header.FragmentHdr
		}
	} else {
		ip := header.IPv6(pkt)
		kind = unix.VIRTIO_NET_HDR_GSO_TCPV6
		f.transport, protocol, src, dst = header.IPv6Len, ip.NextHeader(), ip.Source(), ip.Dest()
	}
	addresses := header.PseudoSum(src, dst, 0, 0)
	f.pair = hash(addresses)
	t := pkt[f.transport:]
	switch {
	case protocol == header.TCP && len(t) >= tcpMinHeader:
		n := int(t[12]>>4) * 4
		f.headers, f.checksum = f.transport+n, tcpChecksum
		plain = plain && n >= tcpMinHeader && n < len(t)
	case protocol == header.UDP && len(t) >= udpHeader:
		kind = unix.VIRTIO_NET_HDR_GSO_UDP_L4
		f.headers, f.checksum = f.transport+udpHeader, udpChecksum
		// A UDP packet without a checksum (RFC 768) must not get one.
		plain = plain && len(t) > udpHeader && int(binary.BigEndian.Uint16(t[udpLength:])) == len(t) &&
			binary.BigEndian.Uint16(t[udpChecksum:]) != 0
	default:
		return f
	}
	pseudo := addresses + uint32(protocol)
	// One complete checksum in 65536 looks partial, too. It does no harm to compute it
	// again.
	f.partial = binary.BigEndian.Uint16(t[f.checksum:]) == header.Fold(pseudo+uint32(len(t)))
	f.ports, f.hash = true, hash(pseudo^binary.BigEndian.Uint32(t))
	if plain {
		f.kind = kind
	}
	return f
}

func hash(v uint32) uint8 { return uint8(v * 0x9e3779b1 >> 24) }

// join appends item i to a group if it continues the group's flow.
func (g *Gatherer) join(to *group, i int16, f *flow) bool {
	first, pkt := g.items[to.first].pkt, g.items[i].pkt
	payload := len(pkt) - f.headers
	if to.closed || to.flow.kind != f.kind || to.flow.headers != f.headers ||
		payload > to.segment || to.size+payload > maxSuper {
		return false
	}
	step, ok := sameIP(first, pkt, to.count)
	if !ok || to.count > 1 && step != to.idStep {
		return false
	}
	a, b := first[f.transport:], pkt[f.transport:]
	if f.isTCP() {
		if !continuesTCP(a[:f.headers-f.transport], b, to.size-f.headers) {
			return false
		}
	} else if [4]byte(a) != [4]byte(b) {
		return false
	}
	// The kernel does not verify the checksums of a super-packet.
	if !to.verified {
		if !verify(first, &to.flow) {
			to.closed = true
			return false
		}
		to.verified = true
	}
	if !verify(pkt, f) {
		return false
	}
	g.items[to.last].next = i
	to.last, to.idStep = i, step
	to.count++
	to.size += payload
	to.closed = payload < to.segment || f.isTCP() && b[tcpFlags]&(tcpPSH|tcpFIN) != 0
	return true
}

// sameIP reports whether pkt can be packet n of a series that begins with first, by its
// IP header, and by how much the identification increases. The identification may be
// constant only where it has no meaning (RFC 6864).
func sameIP(first, pkt []byte, n int) (step byte, ok bool) {
	if header.Version(first) == 6 {
		// Version, traffic class, flow label; next header, hop limit, addresses.
		return 0, header.Version(pkt) == 6 && [4]byte(first) == [4]byte(pkt) &&
			[34]byte(first[6:]) == [34]byte(pkt[6:])
	}
	a, b := header.IPv4(first), header.IPv4(pkt)
	if [2]byte(a) != [2]byte(b) || [4]byte(a[6:]) != [4]byte(b[6:]) || [8]byte(a[12:]) != [8]byte(b[12:]) {
		return 0, false
	}
	switch b.ID() - a.ID() {
	case uint16(n):
		return 1, true
	case 0:
		return 0, !a.MayFragment()
	}
	return 0, false
}

// continuesTCP reports whether the TCP header b continues a series that begins with
// header a, offset bytes of payload later, and differs in nothing else.
func continuesTCP(a, b []byte, offset int) bool {
	const same = ^(tcpFIN | tcpPSH)
	return [4]byte(a) == [4]byte(b) && // ports
		binary.BigEndian.Uint32(b[tcpSequence:]) == binary.BigEndian.Uint32(a[tcpSequence:])+uint32(offset) &&
		[5]byte(a[8:]) == [5]byte(b[8:]) && // acknowledgement, header length
		a[tcpFlags] == b[tcpFlags]&same &&
		[2]byte(a[14:]) == [2]byte(b[14:]) && // window
		string(a[18:]) == string(b[18:len(a)]) // urgent pointer, options
}

// verify reports whether a packet's transport checksum is correct.
func verify(pkt []byte, f *flow) bool {
	t := pkt[f.transport:]
	protocol := byte(header.UDP)
	if f.isTCP() {
		protocol = header.TCP
	}
	src, dst := addresses(pkt)
	return header.Sum(t, header.PseudoSum(src, dst, len(t), protocol)) == 0xffff
}

func addresses(pkt []byte) (src, dst []byte) {
	if header.Version(pkt) == 4 {
		return header.IPv4(pkt).Source(), header.IPv4(pkt).Dest()
	}
	return header.IPv6(pkt).Source(), header.IPv6(pkt).Dest()
}

// Refused lists the packets that the kernel did not accept.
type Refused struct {
	Packets int
	Bytes   int
	Err     error   // of the last of them: ErrGone, ErrDown, or the kernel's error
	Which   []int16 // indexes in the order of Add, from 0; valid until the next Write
}

// Write writes all packets to the queue and removes them from the gatherer.
func (g *Gatherer) Write(q *Queue) (r Refused) {
	r.Which = g.refused[:0]
	for i := range g.groups {
		g.write(q, &g.groups[i], &r)
	}
	g.refused = r.Which
	g.Discard()
	return r
}

// Discard removes all packets without writing them.
func (g *Gatherer) Discard() {
	g.items, g.groups = g.items[:0], g.groups[:0]
	clear(g.last[:])
	clear(g.ended[:])
}

// write writes one group. If the kernel refuses a super-packet, write writes its packets
// one by one, so that only a bad packet is lost.
func (g *Gatherer) write(q *Queue, to *group, r *Refused) {
	first := g.items[to.first].pkt
	clear(g.vnet[:])
	if to.merged > 0 {
		g.writeMerged(q, to, r)
		return
	}
	if to.count > 1 {
		if q.gathers(to.flow.kind) {
			n := copy(g.saved[:], first[:to.flow.headers])
			g.head(first, to)
			if g.writev(q, to.first, to.count, to.flow.headers) == nil {
				return
			}
			copy(first, g.saved[:n])
			clear(g.vnet[:])
		}
	} else if to.flow.partial {
		g.partial(first, &to.flow)
	}
	for i := to.first; i >= 0; i = g.items[i].next {
		if err := g.writev(q, i, 1, 0); err != nil {
			g.refuse(i, err, r)
		}
	}
}

// refuse records that the kernel did not accept a packet.
func (g *Gatherer) refuse(i int16, err error, r *Refused) {
	r.Packets++
	r.Bytes += len(g.items[i].pkt)
	r.Err = err
	r.Which = append(r.Which, i)
}

// head changes the first packet's headers to those of the whole group.
func (g *Gatherer) head(first []byte, to *group) {
	f := &to.flow
	t := first[f.transport:]
	length := to.size - f.transport
	if header.Version(first) == 4 {
		ip := header.IPv4(first)
		binary.BigEndian.PutUint16(ip[2:], uint16(to.size))
		ip.SetChecksum()
	} else {
		binary.BigEndian.PutUint16(first[4:], uint16(to.size-header.IPv6Len))
	}
	protocol := byte(header.UDP)
	if f.isTCP() {
		protocol = header.TCP
		t[tcpFlags] |= g.items[to.last].pkt[f.transport+tcpFlags] & (tcpPSH | tcpFIN)
	} else {
		binary.BigEndian.PutUint16(t[udpLength:], uint16(length))
	}
	src, dst := addresses(first)
	binary.BigEndian.PutUint16(t[f.checksum:], header.Fold(header.PseudoSum(src, dst, length, protocol)))
	g.partial(first, f)
	g.segments(f, to.segment)
}

// partial sets the virtio header so that the kernel computes the checksum, and segments
// a TCP packet that is larger than the MTU of the interface.
func (g *Gatherer) partial(pkt []byte, f *flow) {
	g.vnet[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(g.vnet[6:], uint16(f.transport))
	binary.NativeEndian.PutUint16(g.vnet[8:], uint16(f.checksum))
	if len(pkt) > g.mtu && f.isTCP() && f.kind != 0 && g.mtu > f.headers {
		g.segments(f, g.mtu-f.headers)
	}
}

// segments sets the virtio header for a super-packet.
func (g *Gatherer) segments(f *flow, size int) {
	g.vnet[1] = f.kind
	binary.NativeEndian.PutUint16(g.vnet[2:], uint16(f.headers))
	binary.NativeEndian.PutUint16(g.vnet[4:], uint16(size))
}

// writev writes count packets of a group, from item i on: the first one whole, and the
// payload of the others.
func (g *Gatherer) writev(q *Queue, i int16, count, headers int) error {
	g.iovs = appendIovec(g.iovs[:0], g.vnet[:])
	g.iovs = appendIovec(g.iovs, g.items[i].pkt)
	for ; count > 1; count-- {
		i = g.items[i].next
		g.iovs = appendIovec(g.iovs, g.items[i].pkt[headers:])
	}
	return q.writev(g.iovs)
}

func appendIovec(v []unix.Iovec, b []byte) []unix.Iovec {
	v = append(v, unix.Iovec{Base: unsafe.SliceData(b)})
	v[len(v)-1].SetLen(len(b))
	return v
}
