package filter

import (
	"golang.org/x/net/bpf"

	"sixfour/encap/header"
)

// Words of the filter's memory. A field that a packet does not have is 0.
const (
	shardAt    = 0 // offset of the header that is being checked
	shardPorts = 1
	shardFrom  = 2 // the source address, or its low word
)

// Labels of a filter. All jumps go forward, as the kernel requires.
const (
	shardIPv6 = iota
	shardPorts6
	shardAddresses6
	shardIn6
	shardIPv4
	shardPorts4
	shardAddresses4
	shardSum
	shardNone
	shardChoose
	shardGRE // the first of one label for each optional field
)

// Shard returns the program for one of count receivers, that of an index from 0 on, which
// share the packets of an IP protocol over an IP version: it drops the packets of the others.
// All packets of a flow belong to the same receiver: it depends on the addresses and ports of
// the innermost flow, if they are at their usual offsets. Packets without them belong to the
// first one. With one receiver, or 0, it gets all packets.
//
// It runs on a whole IPv4 packet, but for IPv6 only on what follows the headers. A load
// beyond a packet's end would drop the packet, so each header's length is checked first.
func Shard(index, count int, version byte, protocol int) []bpf.Instruction {
	const everything = 1 << 18
	if count <= 1 {
		return []bpf.Instruction{bpf.RetConstant{Val: everything}}
	}
	b := new(program)
	b.add(bpf.LoadConstant{Dst: bpf.RegA, Val: 0},
		bpf.StoreScratch{Src: bpf.RegA, N: shardPorts})
	carried := uint32(0)
	if version == 4 {
		carried = header.IPv4Len
		b.add(bpf.LoadExtension{Num: bpf.ExtLen})
		b.jump(bpf.JumpLessThan, carried, shardNone)
		b.add(bpf.LoadAbsolute{Off: 0, Size: 1})
		b.jump(bpf.JumpNotEqual, 0x45, shardNone) // with options
	}
	b.add(bpf.LoadConstant{Dst: bpf.RegX, Val: carried})
	switch protocol {
	case header.ProtoIPv6:
	case header.ProtoIPv4:
		b.always(shardIPv4)
	case header.GRE:
		b.gre(carried)
	default:
		b.always(shardNone)
	}
	b.ipv6()
	b.ipv4()
	b.label(shardSum) // of A and the filter's memory
	for _, n := range []int{shardPorts, shardFrom} {
		b.add(bpf.LoadScratch{Dst: bpf.RegX, N: n}, bpf.ALUOpX{Op: bpf.ALUOpAdd})
	}
	b.add(bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 0x9e3779b1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 16},
		bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(count)})
	b.always(shardChoose)
	b.label(shardNone)
	b.add(bpf.LoadConstant{Dst: bpf.RegA, Val: 0})
	b.label(shardChoose)
	b.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(index), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: everything})
	return b.code
}

// gre continues with what a GRE header carries (RFC 2784, 2890). A header of version 1
// or with routing (RFC 1701) is not ours.
func (b *program) gre(at uint32) {
	const (
		checksum, key, sequence = 0x8000, 0x2000, 0x1000
		foreign                 = 0x4000 | 7
	)
	b.need(4, shardNone)
	b.add(bpf.LoadAbsolute{Off: at, Size: 2})
	b.jump(bpf.JumpBitsSet, foreign, shardNone)
	b.add(bpf.LoadConstant{Dst: bpf.RegX, Val: at + 4})
	for i, field := range []uint32{checksum, key, sequence} {
		b.add(bpf.LoadAbsolute{Off: at, Size: 2})
		b.jump(bpf.JumpBitsNotSet, field, shardGRE+i)
		b.advance(4)
		b.label(shardGRE + i)
	}
	b.add(bpf.LoadAbsolute{Off: at + 2, Size: 2})
	b.jump(bpf.JumpEqual, 0x0800, shardIPv4)
	b.jump(bpf.JumpNotEqual, 0x86dd, shardNone)
}

// ipv6 handles an IPv6 packet at X: the low words of the addresses, and the ports. If it
// carries IPv4, that is the innermost flow.
func (b *program) ipv6() {
	b.label(shardIPv6)
	b.need(header.IPv6Len, shardNone)
	b.add(bpf.LoadIndirect{Off: 6, Size: 1})
	b.jump(bpf.JumpEqual, header.ProtoIPv4, shardIn6)
	b.jump(bpf.JumpEqual, header.TCP, shardPorts6)
	b.jump(bpf.JumpNotEqual, header.UDP, shardAddresses6)
	b.flow(shardPorts6, shardAddresses6, header.IPv6Len, 20, 36)
	b.always(shardSum)
	b.label(shardIn6)
	b.advance(header.IPv6Len)
}

// ipv4 handles an IPv4 packet at X: the addresses, and the ports if there are no options
// and the packet is not a fragment.
func (b *program) ipv4() {
	b.label(shardIPv4)
	b.need(header.IPv4Len, shardNone)
	b.add(bpf.LoadIndirect{Off: 0, Size: 1})
	b.jump(bpf.JumpNotEqual, 0x45, shardAddresses4)
	b.add(bpf.LoadIndirect{Off: 6, Size: 2})
	b.jump(bpf.JumpBitsSet, header.MF|header.OffsetMask, shardAddresses4)
	b.add(bpf.LoadIndirect{Off: 9, Size: 1})
	b.jump(bpf.JumpEqual, header.TCP, shardPorts4)
	b.jump(bpf.JumpNotEqual, header.UDP, shardAddresses4)
	b.flow(shardPorts4, shardAddresses4, header.IPv4Len, 12, 16)
}

// flow loads, at the label ports, the ports after a header of a length at X and, at the
// label addresses, the words of its addresses. The second of these is then in A.
func (b *program) flow(ports, addresses int, length, from, to uint32) {
	b.label(ports)
	b.need(length+4, addresses)
	b.add(bpf.LoadIndirect{Off: length, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: shardPorts})
	b.label(addresses)
	b.add(bpf.LoadIndirect{Off: from, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: shardFrom},
		bpf.LoadIndirect{Off: to, Size: 4})
}

// need jumps if the packet has less than n bytes from X on. It changes A.
func (b *program) need(n uint32, otherwise int) {
	b.add(bpf.StoreScratch{Src: bpf.RegX, N: shardAt},
		bpf.TXA{},
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: n},
		bpf.TAX{},
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.ALUOpX{Op: bpf.ALUOpSub}, // if bytes are missing, the highest bit of the difference is set
		bpf.LoadScratch{Dst: bpf.RegX, N: shardAt})
	b.jump(bpf.JumpBitsSet, 1<<31, otherwise)
}

// advance adds n to X. It changes A.
func (b *program) advance(n uint32) {
	b.add(bpf.TXA{}, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: n}, bpf.TAX{})
}
