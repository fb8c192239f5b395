package transport

import (
	"golang.org/x/net/bpf"

	"sixfour/encap/header"
)

// Shard is one receiver's part of the packets to an address. Flows stay whole:
// which part a packet belongs to follows from the addresses and ports of the
// innermost flow, as far as they are at their usual place.
type Shard struct {
	Index int // from 0
	Count int // 0 or 1: there is one receiver, which gets everything
}

// Offsets in a packet of protocol 41 without IPv4 options: the IPv6 header, and
// behind it what it carries.
const (
	shardIPv6   = header.IPv4Len
	shardInner  = shardIPv6 + header.IPv6Len
	shardPorts6 = shardInner                  // of TCP and UDP in IPv6
	shardPorts4 = shardInner + header.IPv4Len // of TCP and UDP in IPv4 in IPv6
	shardLen    = shardPorts4 + 4             // shorter packets all go to the first shard
)

// filter is the program by which the kernel keeps from a receiver what belongs
// to others: it returns how many bytes of a packet are wanted. A load beyond a
// packet's end would drop it, so that short ones are told apart first.
func (s Shard) filter() []bpf.Instruction {
	const everything = 1 << 18
	const ipv4, addresses, sum, choose = 16, 25, 29, 32 // labels
	return []bpf.Instruction{
		// X is what the packet's shard follows from.
		0: bpf.LoadConstant{Dst: bpf.RegX, Val: 0},
		1: bpf.LoadExtension{Num: bpf.ExtLen},
		2: bpf.JumpIf{Cond: bpf.JumpLessThan, Val: shardLen, SkipTrue: choose - 3},
		3: bpf.LoadAbsolute{Off: 0, Size: 1},
		4: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x45, SkipTrue: choose - 5},
		5: bpf.LoadAbsolute{Off: shardIPv6 + 6, Size: 1},
		6: bpf.JumpIf{Cond: bpf.JumpEqual, Val: header.ProtoIPv4, SkipTrue: ipv4 - 7},
		// IPv6: the low words of the addresses, and the ports.
		7:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: header.TCP, SkipTrue: 1},
		8:  bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: header.UDP, SkipTrue: 2},
		9:  bpf.LoadAbsolute{Off: shardPorts6, Size: 4},
		10: bpf.TAX{},
		11: bpf.LoadAbsolute{Off: shardIPv6 + 20, Size: 4},
		12: bpf.ALUOpX{Op: bpf.ALUOpAdd},
		13: bpf.TAX{},
		14: bpf.LoadAbsolute{Off: shardIPv6 + 36, Size: 4},
		15: bpf.Jump{Skip: sum - 16},
		// IPv4 in IPv6: the addresses, and the ports where there are no options
		// and no fragments.
		ipv4: bpf.LoadAbsolute{Off: shardInner, Size: 1},
		17:   bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x45, SkipTrue: addresses - 18},
		18:   bpf.LoadAbsolute{Off: shardInner + 6, Size: 2},
		19:   bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: header.MF | header.OffsetMask, SkipTrue: addresses - 20},
		20:   bpf.LoadAbsolute{Off: shardInner + 9, Size: 1},
		21:   bpf.JumpIf{Cond: bpf.JumpEqual, Val: header.TCP, SkipTrue: 1},
		22:   bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: header.UDP, SkipTrue: addresses - 23},
		23:   bpf.LoadAbsolute{Off: shardPorts4, Size: 4},
		24:   bpf.TAX{},

		addresses: bpf.LoadAbsolute{Off: shardInner + 12, Size: 4},
		26:        bpf.ALUOpX{Op: bpf.ALUOpAdd},
		27:        bpf.TAX{},
		28:        bpf.LoadAbsolute{Off: shardInner + 16, Size: 4},

		sum: bpf.ALUOpX{Op: bpf.ALUOpAdd},
		30:  bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 0x9e3779b1},
		31:  bpf.TAX{},

		choose: bpf.TXA{},
		33:     bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 16},
		34:     bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(s.Count)},
		35:     bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(s.Index), SkipTrue: 1},
		36:     bpf.RetConstant{Val: 0},
		37:     bpf.RetConstant{Val: everything},
	}
}
