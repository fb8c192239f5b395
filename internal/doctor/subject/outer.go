package subject

import (
	"fmt"
	"slices"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/internal/firewall"
)

// Outer returns the kind of the outermost layer on the path to the peer.
func (p *Peer) Outer() encap.Kind { return p.Tunnel.Config.Outermost(&p.Config.Paths[0]) }

// HasPorts reports whether the packets on the path to the peer have UDP ports.
func (p *Peer) HasPorts() bool { return p.Outer().Properties().Ports != framing.Ports{} }

// PortTo returns the destination port of the outer packets that leave this host, or of
// those that arrive (hook Input); 0: they have none.
func (p *Peer) PortTo(hook firewall.Hook) uint16 {
	ports := p.Outer().Properties().Ports
	if hook == firewall.Input {
		return ports.Local
	}
	if m := p.Tunnel.Mechanism(); m >= 0 {
		if s, ok := p.Tunnel.Config.Layers[m].Mechanism.(resolve.Served); ok {
			return s.HostPort()
		}
	}
	return ports.Remote
}

// Traffic names the outer packets that leave this host, or that arrive (hook Input):
// "protocol 41", or "UDP port 5555" with their destination port.
func (p *Peer) Traffic(hook firewall.Hook) string {
	if p.HasPorts() {
		return fmt.Sprintf("UDP port %d", p.PortTo(hook))
	}
	return fmt.Sprintf("protocol %d", p.Outer().Protocol())
}

// EncapKnown returns why the encapsulation of the path to the peer is not known; "": it is.
func (p *Peer) EncapKnown() string {
	name := p.Config.Paths[0].Encap
	if slices.ContainsFunc(config.Encapsulations, func(e config.Encapsulation) bool { return e.Name == name }) {
		return ""
	}
	return fmt.Sprintf("this program does not know the encapsulation %q, which the daemon uses", name)
}
