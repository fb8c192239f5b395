package firewall

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// littleEndian reports the machine's byte order.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// bitwise evaluates dst = (src & mask) ^ xor. Shifts, which have no mask, are unknown.
func (e *evaluation) bitwise(x *expr.Bitwise) {
	n := int(min(x.Len, registersLen))
	v := e.registers.load(x.SourceRegister, n)
	out := unknownValue(n)
	if len(x.Mask) == n && len(x.Xor) == n {
		for i := range n {
			out.b[i] = v.b[i]&x.Mask[i] ^ x.Xor[i]
			out.known[i] = v.known[i] || x.Mask[i] == 0
		}
	}
	e.registers.store(x.DestRegister, out)
}

// byteorder converts numbers of Size bytes between the machine's and the network's byte
// order.
func (e *evaluation) byteorder(x *expr.Byteorder) {
	v := e.registers.load(x.SourceRegister, int(min(x.Len, registersLen)))
	out := value{bytes.Clone(v.b), slices.Clone(v.known)}
	if size := int(min(x.Size, registersLen)); size > 1 && littleEndian {
		for i := 0; i+size <= len(out.b); i += size {
			slices.Reverse(out.b[i : i+size])
			slices.Reverse(out.known[i : i+size])
		}
	}
	e.registers.store(x.DestRegister, out)
}

func (e *evaluation) payload(x *expr.Payload) {
	at, n := int(min(x.Offset, 1<<16)), int(min(x.Len, registersLen))
	inside := x.Base == expr.PayloadBaseNetworkHeader && at+n <= len(e.head.b)
	behind := x.Base == expr.PayloadBaseTransportHeader && at+n <= len(e.packet.Payload)
	if x.OperationType == expr.PayloadWrite {
		if inside {
			clear(e.head.known[at : at+n])
		}
		return
	}
	v := unknownValue(n)
	switch {
	case inside:
		v = e.head.part(at, at+n)
	case behind:
		v = knownValue(e.packet.Payload[at : at+n])
	}
	e.registers.store(x.DestRegister, v)
}

// ct is known for packets that are tracked, if it is known whether they are answers.
func (e *evaluation) ct(x *expr.Ct) {
	if x.SourceRegister {
		return
	}
	if x.Key != expr.CtKeySTATE || !e.tracked {
		e.registers.store(x.Register, unknownValue(16))
		return
	}
	e.registers.store(x.Register, knownValue(binary.NativeEndian.AppendUint32(nil, e.state())))
}

// fib is known for the types of addresses: one end is local, the other is unicast. The
// reverse path, to the device on which a packet arrived, is not checked here.
func (e *evaluation) fib(x *expr.Fib) {
	v := unknownValue(16)
	ours := x.FlagDADDR && e.packet.Hook == Input || x.FlagSADDR && e.packet.Hook == Output
	index := e.packet.Index
	if x.FlagDADDR && e.packet.Hook == Forward {
		index = e.packet.ToIndex
	}
	switch {
	case x.ResultADDRTYPE && x.FlagSADDR != x.FlagDADDR:
		kind := uint32(unix.RTN_UNICAST)
		if ours {
			kind = unix.RTN_LOCAL
		}
		v = knownValue(binary.NativeEndian.AppendUint32(nil, kind))
	case x.FlagPRESENT && !ours:
		v = knownValue([]byte{1, 0, 0, 0})
	case x.ResultOIF && !ours && index != 0:
		v = knownValue(binary.NativeEndian.AppendUint32(nil, uint32(index)))
	}
	e.registers.store(x.Register, v)
}

// device returns the device on which the packet arrives, or through which it leaves, as
// a chain at this hook sees it. none means that there is no device; an empty name
// without none means that it is unknown.
func (e *evaluation) device(in bool) (name string, index int, none bool) {
	p := e.packet
	switch p.Hook {
	case Input:
		return p.Device, p.Index, !in
	case Output:
		return p.Device, p.Index, in
	}
	if in {
		return p.Device, p.Index, false
	}
	return p.To, p.ToIndex, e.entered.hook == prerouting
}

// meta loads properties of the packet that are not in its bytes.
func (e *evaluation) meta(x *expr.Meta) {
	if x.SourceRegister {
		if x.Key == expr.MetaKeyMARK {
			e.mark = unknownValue(4)
		}
		return
	}
	p, four := e.packet, e.packet.Source.Is4()
	in := x.Key == expr.MetaKeyIIF || x.Key == expr.MetaKeyIIFNAME
	v := unknownValue(16)
	switch x.Key {
	case expr.MetaKeyL4PROTO:
		v = knownValue([]byte{p.Protocol})
	case expr.MetaKeyNFPROTO:
		v = knownValue([]byte{unix.NFPROTO_IPV6})
		if four {
			v = knownValue([]byte{unix.NFPROTO_IPV4})
		}
	case expr.MetaKeyPROTOCOL:
		v = knownValue(binary.BigEndian.AppendUint16(nil, header.EtherType(6)))
		if four {
			v = knownValue(binary.BigEndian.AppendUint16(nil, header.EtherType(4)))
		}
	case expr.MetaKeyMARK:
		v = e.mark
	case expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME:
		if device, _, none := e.device(in); none {
			v = knownValue(make([]byte, unix.IFNAMSIZ))
		} else if device != "" {
			name := make([]byte, unix.IFNAMSIZ)
			copy(name, device)
			v = knownValue(name)
		}
	case expr.MetaKeyIIF, expr.MetaKeyOIF:
		if _, index, none := e.device(in); none {
			v = knownValue(make([]byte, 4))
		} else if index != 0 {
			v = knownValue(binary.NativeEndian.AppendUint32(nil, uint32(index)))
		}
	case expr.MetaKeyPKTTYPE:
		if p.Hook != Output {
			v = knownValue([]byte{unix.PACKET_HOST})
		}
	}
	e.registers.store(x.Register, v)
}
