package engine

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/config"
	"sixfour/internal/netcfg"
	"sixfour/transport"
)

// hop is the Ethernet way of a path's packets: from a device to the next hop.
// The zero value means that there is none, and packets go through the socket
// alone.
type hop struct {
	port     *transport.XDPPort
	from, to [6]byte
}

// port is a device that packets leave by directly, or why they cannot.
type port struct {
	*transport.XDPPort
	err   error
	retry time.Time // after err
}

// wantsXDP reports whether a tunnel may send past the socket.
func (t *tunnel) wantsXDP() bool { return t.cfg.IO != config.IOSocket }

// findHop is the way through the route's device, if the tunnel is to send past
// the socket and the device can do it.
func (e *Engine) findHop(t *tunnel, route netcfg.Route) hop {
	if !t.wantsXDP() {
		return hop{}
	}
	h, err := e.tryHop(route)
	if why := fmt.Sprint(err); err != nil && why != t.noXDP {
		t.noXDP = why
		level := zap.InfoLevel
		if t.cfg.IO == config.IOXDP {
			level = zap.WarnLevel
		}
		t.log.Log(level, "packets leave through a socket, not through AF_XDP", zap.Error(err))
	} else if err == nil {
		t.noXDP = ""
	}
	return h
}

func (e *Engine) tryHop(route netcfg.Route) (hop, error) {
	if !route.Ethernet {
		return hop{}, fmt.Errorf("%s is no Ethernet device", route.Interface)
	}
	to, ok := e.router.Neighbour(route)
	if !ok {
		return hop{}, fmt.Errorf("the hardware address of %v at %s is not known yet", route.Hop, route.Interface)
	}
	p, err := e.port(route)
	if err != nil {
		return hop{}, fmt.Errorf("%s: %w", route.Interface, err)
	}
	return hop{p, route.Hardware, to}, nil
}

// port is the one of a route's device, opened if there is none that is of use.
func (e *Engine) port(route netcfg.Route) (*transport.XDPPort, error) {
	p := e.ports[route.Index]
	if p != nil && p.err == nil {
		if !p.Broken() && p.MTU() >= route.MTU {
			return p.XDPPort, nil
		}
		p.Close()
	}
	if p != nil && p.err != nil && time.Now().Before(p.retry) {
		return nil, p.err
	}
	p = new(port)
	if p.XDPPort, p.err = transport.OpenXDP(route.Index, route.MTU); p.err != nil {
		p.retry = time.Now().Add(lookAgain)
	}
	e.ports[route.Index] = p
	return p.XDPPort, p.err
}

// closePorts closes those that no path uses any more.
func (e *Engine) closePorts() {
	used := make(map[*transport.XDPPort]bool)
	for _, t := range e.tunnels {
		if p := t.path.Load(); p != nil {
			used[p.hop.port] = true
		}
	}
	for device, p := range e.ports {
		if p.err == nil && !used[p.XDPPort] {
			p.Close()
			delete(e.ports, device)
		}
	}
}

// io is how the path's packets leave.
func (p *path) io() config.IO {
	if p.hop.port != nil {
		return config.IOXDP
	}
	return config.IOSocket
}
