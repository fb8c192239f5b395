package config

import (
	"sixfour/encap"
	"sixfour/encap/framing"
)

// isBareOrGRE reports whether packets, or a GRE header, follow the delivery header of a
// layer.
func isBareOrGRE(outermost encap.Kind) bool {
	_, gre := outermost.Framing().(framing.GRE)
	return gre || isBare(outermost)
}

// goesInFOU is isBareOrGRE for foo over UDP, which can also have a SEAL header.
func goesInFOU(outermost encap.Kind) bool {
	_, sealed := outermost.Framing().(framing.SEAL)
	return sealed || isBareOrGRE(outermost)
}

// inUDP returns the framing of foo over UDP in which a path carries the outermost layer of a
// mode: its packets, or its GRE header and its packets.
func inUDP(outermost encap.Kind, p *Path) framing.FOU {
	f := framing.FOU{Local: p.LocalPort, Remote: p.Port, NoChecksum: !p.Checksum, Flow: p.FlowPort, Exact: p.Secret.File != ""}
	switch inside := outermost.Framing().(type) {
	case framing.Bare:
		f.Version = int(inside)
	case framing.GRE:
		f.Inside = inside
	case framing.SEAL:
		f.Inside = inside
	}
	return f
}

// inFOU, inGUE and inGREUDP are values of Encapsulation.Frame.

func inFOU(outermost encap.Kind, p *Path) encap.Kind { return outermost.With(inUDP(outermost, p)) }

func inGUE(outermost encap.Kind, p *Path) encap.Kind {
	return outermost.With(framing.GUE(inUDP(outermost, p)))
}

// inGREUDP adds a GRE header to packets without one, which all packets in this encapsulation
// have.
func inGREUDP(outermost encap.Kind, p *Path) encap.Kind {
	f := inUDP(outermost, p)
	if f.Inside == nil {
		f.Inside = framing.GRE{}
	}
	return outermost.With(f)
}

// NeedsRaw reports whether packets on a path need raw sockets, for which the process must
// have CAP_NET_RAW. A socket of UDP sends whole packets, from its own port and with a checksum.
func (t *Tunnel) NeedsRaw(p *Path) bool {
	kind := t.Outermost(p)
	switch k := kind.Properties(); {
	case k.Session:
		return false
	case k.Ports.Local == 0, p.FlowPort, t.Options.StaticMTU:
		return true
	}
	if kind.Over() == 6 {
		return t.Options.EncapLimit != encap.NoEncapLimit
	}
	return !p.Checksum
}
