package decode

import (
	"fmt"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"sixfour/internal/pcapng"
)

// Link types (LINKTYPE_…) of packets that begin with their IP header, beside those of
// package pcapng.
const (
	linkIPv4 = 228
	linkIPv6 = 229
)

// LinkEthernet is the link type of Ethernet.
const LinkEthernet = int(layers.LinkTypeEthernet)

// Layers decodes a packet of a link type.
func Layers(b []byte, link int) []*Layer {
	d := new(decoder)
	d.link(b, link)
	return d.layers
}

// decoder decodes one packet. It has a method for each header that tunnels use, which shows
// the fields. Of all other headers it shows the names and sizes.
type decoder struct {
	layers []*Layer
	quoted bool
}

// maxLayers bounds the number of layers that are decoded, whatever the packet contains.
const maxLayers = 64

func (d *decoder) add(name string, bytes int) *Layer {
	l := &Layer{Name: name, Bytes: bytes, Quoted: d.quoted}
	d.layers = append(d.layers, l)
	return l
}

// rest adds the data after the last known header.
func (d *decoder) rest(b []byte) {
	if len(b) > 0 {
		d.add("payload", len(b))
	}
}

// truncated adds a header that is cut off.
func (d *decoder) truncated(name string, b []byte) {
	d.add(name, len(b)).note("cut off")
}

// link decodes a packet that begins with the header of a link type.
func (d *decoder) link(b []byte, link int) {
	switch {
	case link == pcapng.LinkRaw || link == pcapng.LinkRawDLT || link == linkIPv4 || link == linkIPv6:
		d.ip(b)
	case link == int(layers.LinkTypeNull):
		d.loopback(b)
	case link >= 0 && link < 1<<16 && d.decode(layers.LinkType(link), b):
	case linkNames[link] == "":
		d.add("unknown", len(b)).note("link type %d", link)
	default:
		d.truncated(linkNames[link], b)
	}
}

// linkNames are the names of link types whose headers may be cut off.
var linkNames = map[int]string{
	int(layers.LinkTypeEthernet): "Ethernet", int(layers.LinkTypeLinuxSLL): "Linux", int(layers.LinkTypeLinuxSLL2): "Linux",
}

// loopback decodes a packet of a BSD loopback device. The header has the IP version in
// numbers that differ between systems.
func (d *decoder) loopback(b []byte) {
	const size = 4
	if len(b) < size {
		d.truncated("loopback", b)
		return
	}
	d.add("loopback", size)
	d.ip(b[size:])
}

// decode decodes data that begins with a layer. If it returns false, it has added
// nothing: gopacket does not know the layer, or cannot decode it.
func (d *decoder) decode(first gopacket.Decoder, b []byte) (ok bool) {
	if kind, ok := first.(gopacket.LayerType); ok {
		if kind == gopacket.LayerTypeZero || len(d.layers) >= maxLayers {
			return false
		}
		if describe := describers[kind]; describe != nil {
			describe(d, b)
			return true
		}
	}
	for i, l := range gopacket.NewPacket(b, first, gopacket.NoCopy).Layers() {
		kind := l.LayerType()
		switch describe := describers[kind]; {
		case i == 0 && opaque[kind]:
			return false
		case opaque[kind] || len(d.layers) >= maxLayers:
			d.rest(b)
			return true
		case describe != nil:
			describe(d, b)
			return true
		}
		n := min(len(l.LayerContents()), len(b))
		if n == 0 && len(l.LayerPayload()) == 0 { // gopacket does not say how long it is
			n = len(b)
		}
		name := names[kind]
		if name == "" {
			name = kind.String()
		}
		d.add(name, n)
		b = b[n:]
	}
	d.rest(b)
	return true
}

// describers are the methods for layers whose fields are shown. (The map is filled by init,
// because the methods refer to it.)
var describers map[gopacket.LayerType]func(*decoder, []byte)

func init() {
	describers = map[gopacket.LayerType]func(*decoder, []byte){
		layers.LayerTypeEthernet: (*decoder).ethernet, layers.LayerTypeDot1Q: (*decoder).vlan,
		layers.LayerTypeIPv4: (*decoder).ip, layers.LayerTypeIPv6: (*decoder).ip, layers.LayerTypeGRE: (*decoder).gre,
		layers.LayerTypeICMPv4: (*decoder).icmp4, layers.LayerTypeICMPv6: (*decoder).icmp6,
		layers.LayerTypeTCP: (*decoder).tcp, layers.LayerTypeUDP: (*decoder).udp,
	}
}

// opaque are the types of data without a known header.
var opaque = map[gopacket.LayerType]bool{
	gopacket.LayerTypePayload: true, gopacket.LayerTypeFragment: true, gopacket.LayerTypeDecodeFailure: true, gopacket.LayerTypeZero: true,
}

// names are the names of layers where gopacket's are not used.
var names = map[gopacket.LayerType]string{
	layers.LayerTypeLinuxSLL: "Linux", layers.LayerTypeLinuxSLL2: "Linux", layers.LayerTypeIPSecESP: "ESP", layers.LayerTypeIPSecAH: "AH",
}

func (d *decoder) ethernet(b []byte) {
	var e layers.Ethernet
	if err := e.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		d.truncated("Ethernet", b)
		return
	}
	l := d.add("Ethernet", len(e.Contents))
	src, dst := e.SrcMAC.String(), e.DstMAC.String()
	l.add("source", src, src+" > "+dst)
	l.add("destination", dst, "")
	l.add("type", uint16(e.EthernetType), fmt.Sprintf("type %#04x", uint16(e.EthernetType)))
	d.etherType(e.EthernetType, b[len(e.Contents):])
}

func (d *decoder) vlan(b []byte) {
	var v layers.Dot1Q
	if err := v.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		d.truncated("VLAN", b)
		return
	}
	d.add("VLAN", len(v.Contents)).field("id", v.VLANIdentifier)
	d.etherType(v.Type, v.Payload)
}

// etherType decodes what follows an EtherType.
func (d *decoder) etherType(kind layers.EthernetType, b []byte) {
	if !d.decode(kind.LayerType(), b) {
		d.rest(b)
	}
}
