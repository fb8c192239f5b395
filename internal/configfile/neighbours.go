package configfile

import (
	"net/netip"
	"strings"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
)

// neighbours holds the tunnels of a file that were read so far.
type neighbours struct {
	names     map[string]int // line of the tunnel with the name
	owners    map[outerKey]owner
	automatic map[automatic]int  // line of the tunnel
	claims    map[string]*claims // by network namespace
	ports     usedPorts
}

// owner is the tunnel that uses an outerKey, with its line or, in a hub, the line of the
// peer.
type owner struct {
	*draft
	line int
}

// outerKey is what distinguishes the outer packets of one peer from those of another.
type outerKey struct {
	version  int // of the outermost header
	protocol byte
	local    netip.Addr
	remote   config.Host
	identity uint64 // of the framing
	from     uint16 // the port from which the packets come; 0: any
}

// automatic identifies a tunnel that can exist only once, because its outer packets have
// any remote address.
type automatic struct {
	mode  string
	local netip.Addr
	port  uint16
}

// portOfMechanism returns the UDP port at which the packets of an automatic tunnel arrive; 0:
// they have none.
func (d *draft) portOfMechanism() uint16 {
	if len(d.Layers) == 0 {
		return 0 // there are errors
	}
	return d.Kind(len(d.Layers) - 1).Properties().Ports.Local
}

// check reports what two tunnels cannot have in common.
func (n *neighbours) check(r *problem.Report, d *draft) {
	if n.names == nil {
		n.names, n.owners, n.automatic, n.claims = map[string]int{}, map[outerKey]owner{}, map[automatic]int{}, map[string]*claims{}
	}
	if d.state.Good("name") {
		if line, taken := n.names[d.Name]; taken {
			r.Add(d.Source.Keys["name"], "name is %s, which the tunnel of line %d has: give each tunnel its own", problem.Quote(d.Name), line)
		} else {
			n.names[d.Name] = d.Source.Header.Line
		}
	}
	n.checkClaims(r, d)
	if !d.known() {
		return
	}
	l := d.layers[len(d.layers)-1]
	local := d.localOf(l)
	switch {
	case local.key != "" && !local.readable, local.key == "" && len(d.paths) == 0, d.state.Bad["path"]:
	case l.mechanism != nil:
		a := automatic{l.mode, local.Addr, d.portOfMechanism()}
		if line, taken := n.automatic[a]; taken {
			r.Add(local.at, "%s is that of the tunnel of line %d, which is of mode %s, too, so that their packets could not be told apart: give one of them another address", local.key, line, problem.Quote(l.mode))
		} else {
			n.automatic[a] = d.Source.Header.Line
		}
	default:
		n.checkPeers(r, d, l, local)
	}
}

// checkPeers reports a peer, or the peer of the short form, whose outer packets cannot
// be distinguished from those of another peer, of this tunnel or of an earlier one.
func (n *neighbours) checkPeers(r *problem.Report, d *draft, l layerDraft, local end) {
	remedy := "give one of them another address"
	if isGRE(l.kind) {
		remedy += " or another key"
	}
	for i := range d.Peers {
		line := d.Source.Header.Line
		if d.Hub {
			line = d.peers[i].header.Line
		}
		for _, path := range d.Peers[i].Paths {
			f := path.Frame(l.kind.With(d.framing(&l))).Properties()
			w := outerKey{version: l.kind.Over(), protocol: f.Protocol, local: path.Local, remote: path.Remote, identity: f.Identity}
			n.ports.check(r, &path, &f)
			if f.Ports.Exact {
				w.from = f.Ports.Remote
			}
			if w.remote == (config.Host{}) || path.Session != nil && path.LocalPort == 0 {
				continue
			}
			w.remote.Name = strings.ToLower(strings.TrimSuffix(w.remote.Name, "."))
			other, taken := n.owners[w]
			switch {
			case !taken:
				n.owners[w] = owner{d, line}
			case other.draft == d:
				r.Add(path.At, "remote is that of the peer of line %d, so that their packets could not be told apart: give each peer its own", other.line)
			case other.Hub:
				r.Add(path.At, "%s and remote are those of the peer of line %d, so that their packets could not be told apart: %s", keyOfLocal(path, local), other.line, remedy)
			default:
				r.Add(path.At, "%s and remote are those of the tunnel of line %d, so that their packets could not be told apart: %s", keyOfLocal(path, local), other.line, remedy)
			}
		}
	}
}

// keyOfLocal returns the key that sets the local end of a path. Local is that of the tunnel.
func keyOfLocal(p config.Path, local end) string {
	if local.key == "" || p.Local != local.Addr {
		return "local"
	}
	return local.key
}
