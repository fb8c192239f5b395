package configfile

import (
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// end is one end of a layer, as configured.
type end struct {
	config.Host        // zero: "auto"
	key         string // "": not given
	at          problem.Pos
	readable    bool // the value is valid
}

// auto reports whether the kernel's routing chooses the end.
func (e end) auto() bool { return e.readable && e.Host == config.Host{} }

// ends are the ends of all layers over one IP version whose items have no ends.
type ends struct{ local, remote end }

// place says for which layers a key's address is used.
type place struct {
	family    int  // IP version; 0: either
	outermost bool // local may be "auto", and remote a name
}

// readLocal reads the local end of a layer.
func (p place) readLocal(r *problem.Report, e tree.Entry) end {
	got := end{key: e.Name, at: e.At}
	switch {
	case !p.outermost:
		got.Addr, got.readable = value.Addr(r, e, p.family, "", value.ParseAddr)
	case e.Kind == tree.String && e.Text == "auto":
		got.readable = true
	default:
		got.Addr, got.readable = value.Addr(r, e, p.family, ` or "auto"`, value.ParseEnd)
	}
	return got
}

// readRemote reads the remote end of a layer.
func (p place) readRemote(r *problem.Report, e tree.Entry) end {
	got := end{key: e.Name, at: e.At}
	switch {
	case e.Kind == tree.String && e.Text == "learn":
		r.Add(e.At, `%s is "learn": a remote end may be learnt from authenticated packets only, and no mode here has them: set it to an address or a DNS name`, e.Name)
	case !p.outermost:
		got.Addr, got.readable = value.Addr(r, e, p.family, "", value.ParseAddr)
	default:
		got.Host, got.readable = value.Host(r, e, p.family, value.OrName)
	}
	return got
}
