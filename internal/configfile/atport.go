package configfile

import (
	"net/netip"

	"sixfour/encap/framing"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
)

// usedPorts holds the ports of the paths that were read so far at which peers arrive.
type usedPorts struct {
	owners map[netip.AddrPort]portOwner
	proofs map[proof]int // line of the path
}

// portOwner is the first path at a port.
type portOwner struct {
	connections any // as in framing.Properties
	line        int
}

// proof is what tells a peer that arrives at a port from the others there.
type proof struct {
	at netip.AddrPort
	by any // the file of a secret, or a key of WireGuard
}

// check reports what a path with a framing cannot have in common with an earlier one at the
// same port.
func (u *usedPorts) check(r *problem.Report, path *config.Path, f *framing.Properties) {
	_, https := path.Session.(config.HTTPS)
	if f.Ports.Local == 0 || https && !path.Listen { // a client uses any port
		return
	}
	if u.owners == nil {
		u.owners, u.proofs = make(map[netip.AddrPort]portOwner), make(map[proof]int)
	}
	at := netip.AddrPortFrom(path.Local, f.Ports.Local)
	owner, taken := u.owners[at]
	if !taken {
		u.owners[at] = portOwner{f.Connections, path.At.Line}
	} else if owner.connections != f.Connections {
		switch owner.connections.(type) {
		case config.WireGuardPort:
			if f.Connections != nil && !https {
				r.Add(path.At, "private_key_file differs from that of the path of line %d, which is at the same local_port: a port has one private key: set it to the same file, or choose another local_port", owner.line)
				return
			}
		case config.HTTPSPort:
			if https {
				r.Add(path.At, "certificate, key or over differ from those of the path of line %d, which is at the same local_port: set them to the same, or choose another local_port", owner.line)
				return
			}
		}
		r.Add(path.At, "local_port is %d, at which the path of line %d has another encap: choose another local_port", f.Ports.Local, owner.line)
		return
	}
	by, key := any(path.Secret.File), "secret_file"
	if s, ok := path.Session.(config.WireGuard); ok {
		by, key = s.Public, "public_key"
	} else if !path.Listen {
		return
	}
	if line, taken := u.proofs[proof{at, by}]; taken {
		r.Add(path.At, "%s is that of the path of line %d, which is at the same local_port, so that the peers could not be told apart: give each its own", key, line)
		return
	}
	u.proofs[proof{at, by}] = path.At.Line
}
