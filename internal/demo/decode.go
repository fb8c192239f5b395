package demo

import (
	"fmt"
	"io"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"sixfour/encap/header"
)

// printPacket takes an Ethernet frame apart, one line a layer, from the outermost
// in: its name, the bytes of its header, and what it says.
func printPacket(w io.Writer, frame []byte) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	for _, l := range p.Layers() {
		name, text := describe(l)
		fmt.Fprintf(w, "  %-9s %4d B  %s\n", name, len(l.LayerContents()), text)
	}
}

func describe(l gopacket.Layer) (name, text string) {
	switch l := l.(type) {
	case *layers.Ethernet:
		return "Ethernet", fmt.Sprintf("%v > %v, type %#04x", l.SrcMAC, l.DstMAC, uint16(l.EthernetType))
	case *layers.IPv4:
		return "IPv4", fmt.Sprintf("%v > %v, protocol %d (%s), TTL %d, TOS %#02x, ID %d, flags %v, length %d, checksum %#04x %s",
			l.SrcIP, l.DstIP, uint8(l.Protocol), protocolName(l.Protocol), l.TTL, l.TOS, l.Id, flags(l.Flags), l.Length, l.Checksum, verdict(l.Contents))
	case *layers.IPv6:
		return "IPv6", fmt.Sprintf("%v > %v, next header %d (%s), hop limit %d, traffic class %#02x, flow label %#05x, payload %d",
			l.SrcIP, l.DstIP, uint8(l.NextHeader), protocolName(l.NextHeader), l.HopLimit, l.TrafficClass, l.FlowLabel, l.Length)
	case *layers.ICMPv4:
		return "ICMP", fmt.Sprintf("%v, identifier %d, sequence %d", l.TypeCode, l.Id, l.Seq)
	case *layers.ICMPv6:
		return "ICMPv6", l.TypeCode.String()
	case *layers.TCP:
		return "TCP", fmt.Sprintf("%d > %d, sequence %d", l.SrcPort, l.DstPort, l.Seq)
	case *layers.UDP:
		return "UDP", fmt.Sprintf("%d > %d, length %d", l.SrcPort, l.DstPort, l.Length)
	}
	return l.LayerType().String(), ""
}

// protocolName is what a protocol or next-header number announces, where that
// is the point of the demonstration.
func protocolName(p layers.IPProtocol) string {
	switch p {
	case layers.IPProtocolIPv4:
		return "IPv4 inside"
	case layers.IPProtocolIPv6:
		return "IPv6 inside"
	}
	return p.String()
}

func flags(f layers.IPv4Flag) string {
	if f == 0 {
		return "none"
	}
	return f.String()
}

// verdict says whether an IPv4 header has the checksum that it should.
func verdict(h []byte) string {
	if header.Sum(h, 0) == 0xffff {
		return "right"
	}
	return "WRONG"
}
