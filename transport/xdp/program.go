package xdp

import (
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// Offsets in struct xdp_md.
const (
	dataEnd = 4
	rxQueue = 16 // rx_queue_index
)

// pass is XDP_PASS.
const pass = 2

// program returns the filter. It takes only packets that fit into a frame. IPv4
// packets must have no options and not be fragments; in IPv6 packets, the protocol must
// directly follow the IPv6 header.
func program(pairs4, pairs6, ports, mtu int) asm.Instructions {
	p := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, dataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, ethernetLen+header.IPv4Len),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		// Not the difference of the pointers: numbers computed from pointers need
		// CAP_PERFMON.
		asm.Mov.Reg(asm.R7, asm.R2),
		asm.Add.Imm(asm.R7, int32(ethernetLen+mtu)),
		asm.JGT.Reg(asm.R3, asm.R7, "pass"),

		asm.LoadMem(asm.R5, asm.R2, 12, asm.Half),
		asm.HostTo(asm.BE, asm.R5, asm.Half),
		asm.JEq.Imm(asm.R5, unix.ETH_P_IPV6, "ipv6"),
		asm.JNE.Imm(asm.R5, unix.ETH_P_IP, "pass"),
	}
	end := asm.Instructions{
		// A queue without a port also passes its packets on.
		asm.LoadMapPtr(asm.R1, ports).WithSymbol("take"),
		asm.LoadMem(asm.R2, asm.R6, rxQueue, asm.Word),
		asm.Mov.Imm(asm.R3, pass),
		asm.FnRedirectMap.Call(),
		asm.Return(),

		asm.Mov.Imm(asm.R0, pass).WithSymbol("pass"),
		asm.Return(),
	}
	p = append(p, ipv4(pairs4)...)
	p = append(p, ipv6(pairs6)...)
	return append(p, end...)
}

// ipv4 checks a packet with a complete IPv4 header.
func ipv4(pairs int) asm.Instructions {
	const ip = ethernetLen
	check := asm.Instructions{
		asm.LoadMem(asm.R5, asm.R2, ip, asm.Byte),
		asm.JNE.Imm(asm.R5, 0x45, "pass"),
		asm.LoadMem(asm.R5, asm.R2, ip+6, asm.Half),
		asm.HostTo(asm.BE, asm.R5, asm.Half),
		asm.And.Imm(asm.R5, header.MF|header.OffsetMask),
		asm.JNE.Imm(asm.R5, 0, "pass"),
	}
	return append(check, lookUp(pairs, key4Len, ip+12, ip+9)...)
}

// ipv6 checks a packet that is at least as long as an IPv4 header.
func ipv6(pairs int) asm.Instructions {
	const ip = ethernetLen
	check := asm.Instructions{
		asm.Mov.Reg(asm.R4, asm.R2).WithSymbol("ipv6"),
		asm.Add.Imm(asm.R4, ip+header.IPv6Len),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.LoadMem(asm.R5, asm.R2, ip, asm.Byte),
		asm.And.Imm(asm.R5, 0xf0),
		asm.JNE.Imm(asm.R5, 0x60, "pass"),
	}
	return append(check, lookUp(pairs, key6Len, ip+8, ip+6)...)
}

// lookUp passes a packet on if its key is not in a map. The addresses and the
// protocol of the key are at these offsets in the packet.
func lookUp(pairs int, keyLen, addresses, protocol int16) asm.Instructions {
	var p asm.Instructions
	for i := int16(0); i < keyLen-4; i += 4 {
		p = append(p,
			asm.LoadMem(asm.R5, asm.R2, addresses+i, asm.Word),
			asm.StoreMem(asm.R10, i-keyLen, asm.R5, asm.Word))
	}
	return append(p,
		asm.LoadMem(asm.R5, asm.R2, protocol, asm.Byte),
		asm.StoreMem(asm.R10, -4, asm.R5, asm.Word),
		asm.LoadMapPtr(asm.R1, pairs),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, int32(-keyLen)),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Ja.Label("take"))
}
