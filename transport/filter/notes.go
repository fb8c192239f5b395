package filter

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// Limits of what Aggregates accepts.
const (
	Large      = 1500 // bytes of an IP packet: larger packets are always accepted
	notedBytes = 320  // bytes of a packet that the kernel copies: its headers
)

// Words of the filter's memory, after those that need uses.
const (
	noteAt       = iota + 4 // offset of the inner packet
	noteSum                 // sum of the inner pseudo-header
	noteProtocol            // protocol of what the outer packet carries
	noteSpare
)

// Labels.
const (
	noteNetwork = iota
	noteIPv6
	noteTunnel4
	noteTunnel6
	noteLarge
	noteNothing
	noteCarried
	noteKnown
	noteKey
	noteAddress
	noteInner6
	noteUpper4
	noteUDP4
	noteUpper6
	noteUDP6
	noteCompare
	noteRefuse
)

// Aggregates returns the filter for a packet socket for all protocols. It accepts tunnel
// packets for this host that the kernel may have merged: large ones, and those with an
// incomplete inner checksum, which GRO leaves. All other packets cost only this program.
// A load beyond a packet's end refuses the packet.
func Aggregates() []bpf.Instruction {
	const otherHost, ethernet, loopback = 3, 1, 772
	const ethernetLen = 14
	p := new(program)
	p.add(bpf.LoadExtension{Num: bpf.ExtType}) // refuses types from otherHost on, which include outgoing packets
	p.jump(bpf.JumpGreaterOrEqual, otherHost, noteNothing)
	p.add(bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}) // the packet arrives again at the VLAN's device
	p.jump(bpf.JumpNotEqual, 0, noteNothing)
	// The program starts at the link-layer header, if there is one.
	p.add(bpf.LoadConstant{Dst: bpf.RegX, Val: ethernetLen}, bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
	p.jump(bpf.JumpEqual, ethernet, noteNetwork)
	p.jump(bpf.JumpEqual, loopback, noteNetwork)
	p.add(bpf.LoadConstant{Dst: bpf.RegX, Val: 0})
	p.label(noteNetwork)
	p.add(bpf.LoadExtension{Num: bpf.ExtProto})
	p.jump(bpf.JumpEqual, unix.ETH_P_IPV6, noteIPv6)
	p.jump(bpf.JumpNotEqual, unix.ETH_P_IP, noteNothing)
	p.outer(9, noteTunnel4)
	p.add(bpf.LoadIndirect{Off: 0, Size: 1})
	p.jump(bpf.JumpNotEqual, 0x45, noteNothing)
	p.add(bpf.LoadIndirect{Off: 6, Size: 2})
	p.jump(bpf.JumpBitsSet, header.MF|header.OffsetMask, noteNothing)
	p.add(bpf.LoadIndirect{Off: 9, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: noteProtocol})
	p.advance(header.IPv4Len)
	p.always(noteCarried)
	p.label(noteIPv6)
	p.outer(6, noteTunnel6)
	p.add(bpf.LoadIndirect{Off: 6, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: noteProtocol})
	p.advance(header.IPv6Len)
	p.add(bpf.LoadScratch{Dst: bpf.RegA, N: noteProtocol})
	p.jump(bpf.JumpNotEqual, header.DestOptions, noteCarried)
	p.add(bpf.LoadIndirect{Off: 0, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: noteProtocol})
	p.add(bpf.LoadIndirect{Off: 1, Size: 1})
	p.jump(bpf.JumpNotEqual, 0, noteNothing) // longer than a header with the encapsulation limit
	p.advance(8)
	p.always(noteCarried)
	p.label(noteLarge) // within the range of a jump
	p.add(bpf.RetConstant{Val: notedBytes})
	// There is no second return: the kernel's check of the filter's memory would continue
	// after it.
	p.label(noteNothing)
	p.always(noteRefuse)
	p.label(noteCarried)
	p.add(bpf.LoadScratch{Dst: bpf.RegA, N: noteProtocol})
	p.innerGRE()
	p.inner4()
	p.inner6()
	p.partial()
	return p.code
}

// outer checks the outer header at X, whose protocol field is at an offset.
func (p *program) outer(protocol uint32, tunnel int) {
	p.add(bpf.LoadIndirect{Off: protocol, Size: 1})
	for _, carried := range []uint32{header.ProtoIPv4, header.ProtoIPv6, header.GRE} {
		p.jump(bpf.JumpEqual, carried, tunnel)
	}
	p.jump(bpf.JumpNotEqual, header.DestOptions, noteNothing) // possibly before a tunnel packet
	p.label(tunnel)
	p.add(bpf.LoadExtension{Num: bpf.ExtLen}, bpf.ALUOpX{Op: bpf.ALUOpSub})
	p.jump(bpf.JumpGreaterThan, Large, noteLarge)
}

// innerGRE skips a GRE header, if A is the protocol GRE. The kernel does not merge
// packets with a sequence number.
func (p *program) innerGRE() {
	const checksum, key, foreign = 0x8000, 0x2000, 0x5007
	p.jump(bpf.JumpNotEqual, header.GRE, noteKnown)
	p.add(bpf.LoadIndirect{Off: 2, Size: 2}, bpf.StoreScratch{Src: bpf.RegA, N: noteProtocol})
	p.add(bpf.LoadIndirect{Off: 0, Size: 2}, bpf.StoreScratch{Src: bpf.RegA, N: noteSpare})
	p.jump(bpf.JumpBitsSet, foreign, noteRefuse)
	p.advance(4)
	p.add(bpf.LoadScratch{Dst: bpf.RegA, N: noteSpare})
	p.jump(bpf.JumpBitsNotSet, checksum, noteKey)
	p.advance(4)
	p.label(noteKey)
	p.add(bpf.LoadScratch{Dst: bpf.RegA, N: noteSpare})
	p.jump(bpf.JumpBitsNotSet, key, noteAddress)
	p.advance(4)
	p.label(noteAddress)
	p.add(bpf.LoadScratch{Dst: bpf.RegA, N: noteProtocol})
	p.label(noteKnown)
	p.add(bpf.StoreScratch{Src: bpf.RegX, N: noteAt})
}

// inner4 computes the sum of the pseudo-header of TCP or UDP in IPv4 (RFC 9293 section
// 3.1), and loads the checksum.
func (p *program) inner4() {
	p.jump(bpf.JumpEqual, header.ProtoIPv6, noteInner6)
	p.jump(bpf.JumpEqual, 0x86dd, noteInner6)
	p.add(bpf.LoadIndirect{Off: 0, Size: 1})
	p.jump(bpf.JumpNotEqual, 0x45, noteRefuse)
	p.add(bpf.LoadIndirect{Off: 6, Size: 2})
	p.jump(bpf.JumpBitsSet, header.MF|header.OffsetMask, noteRefuse)
	p.add(bpf.LoadIndirect{Off: 9, Size: 1})
	p.jump(bpf.JumpEqual, header.TCP, noteUpper4)
	p.jump(bpf.JumpNotEqual, header.UDP, noteRefuse)
	p.label(noteUpper4)
	p.add(bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: ^uint32(header.IPv4Len) + 1}, bpf.StoreScratch{Src: bpf.RegA, N: noteSum})
	p.sum(2, 12, 14, 16, 18) // the length, and the addresses
	p.fold()
	p.add(bpf.LoadIndirect{Off: 9, Size: 1})
	p.jump(bpf.JumpEqual, header.UDP, noteUDP4)
	p.add(bpf.LoadIndirect{Off: header.IPv4Len + 16, Size: 2})
	p.always(noteCompare)
	p.label(noteUDP4)
	p.add(bpf.LoadIndirect{Off: header.IPv4Len + 6, Size: 2})
	p.always(noteCompare)
}

// inner6 is inner4 for IPv6 (RFC 8200 section 8.1).
func (p *program) inner6() {
	p.label(noteInner6)
	p.add(bpf.LoadIndirect{Off: 6, Size: 1})
	p.jump(bpf.JumpEqual, header.TCP, noteUpper6)
	p.jump(bpf.JumpNotEqual, header.UDP, noteRefuse)
	p.label(noteUpper6)
	p.add(bpf.StoreScratch{Src: bpf.RegA, N: noteSum})
	p.sum(4, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38)
	p.fold()
	p.add(bpf.LoadIndirect{Off: 6, Size: 1})
	p.jump(bpf.JumpEqual, header.UDP, noteUDP6)
	p.add(bpf.LoadIndirect{Off: header.IPv6Len + 16, Size: 2})
	p.always(noteCompare)
	p.label(noteUDP6)
	p.add(bpf.LoadIndirect{Off: header.IPv6Len + 6, Size: 2})
}

// sum adds 16-bit words of the inner packet.
func (p *program) sum(offsets ...uint32) {
	for _, off := range offsets {
		p.add(bpf.LoadIndirect{Off: off, Size: 2},
			bpf.LoadScratch{Dst: bpf.RegX, N: noteSum},
			bpf.ALUOpX{Op: bpf.ALUOpAdd},
			bpf.StoreScratch{Src: bpf.RegA, N: noteSum},
			bpf.LoadScratch{Dst: bpf.RegX, N: noteAt})
	}
}

// fold reduces the sum to 16 bits.
func (p *program) fold() {
	for range 2 {
		p.add(bpf.LoadScratch{Dst: bpf.RegA, N: noteSum},
			bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 16},
			bpf.StoreScratch{Src: bpf.RegA, N: noteSpare},
			bpf.LoadScratch{Dst: bpf.RegA, N: noteSum},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffff},
			bpf.LoadScratch{Dst: bpf.RegX, N: noteSpare},
			bpf.ALUOpX{Op: bpf.ALUOpAdd},
			bpf.StoreScratch{Src: bpf.RegA, N: noteSum})
	}
	p.add(bpf.LoadScratch{Dst: bpf.RegX, N: noteAt})
}

// partial accepts a packet if its checksum, in A, is only the sum of the pseudo-header.
func (p *program) partial() {
	p.label(noteCompare)
	p.add(bpf.LoadScratch{Dst: bpf.RegX, N: noteSum}, bpf.ALUOpX{Op: bpf.ALUOpSub})
	p.jump(bpf.JumpNotEqual, 0, noteRefuse)
	p.add(bpf.RetConstant{Val: notedBytes})
	p.label(noteRefuse)
	p.add(bpf.RetConstant{Val: 0})
}
