// Package subject has what doctor checks (this host, its tunnels and their peers), with
// what the configuration, the daemon, systemd and the kernel say about them.
package subject

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sixfour/encap"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/configfile"
	"sixfour/internal/control/client"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/prober"
	"sixfour/internal/firewall"
	"sixfour/internal/netcfg"
)

// Host is this host, with what is known of the daemon and its configuration.
type Host struct {
	Options        Options
	Socket         string
	File           string         // of the configuration
	Config         *config.Config // nil: there is no valid one
	ConfigErr      error
	Warnings       problem.List // the daemon starts with them, but does not reload
	Status         *api.Status  // nil: no daemon answers
	StatusErr      error        // why no daemon answers
	PID            int          // of the daemon; 0: not known
	Unit           unit         // the daemon's systemd unit; nil: none
	OtherNamespace string       // the daemon's network namespace, if it differs from ours

	Router    *netcfg.Router
	RouterErr error
	Rules     func() (*firewall.Ruleset, error)
}

// Tunnel is one tunnel of the configuration, of the daemon, or of both.
type Tunnel struct {
	Host     *Host
	Config   config.Tunnel
	FromFile bool              // Config comes from the file, so it is complete
	Status   *api.TunnelStatus // nil: the daemon does not have it
	Peers    []*Peer
	Omitted  int      // peers that are not checked because there are too many
	Failed   []string // failed checks
}

// Peer is one remote end; in an automatic tunnel, a relay or router that it needs.
type Peer struct {
	Tunnel *Tunnel
	Config *config.Peer
	Status *api.PeerStatus // nil: the daemon does not have it
	Target config.Host     // outer end; zero: there is none to probe
	Failed []string        // failed checks

	// Results of the checks.
	Remote, Local netip.Addr // outer addresses; invalid: not known
	Route         netcfg.Route
	Prober        *prober.Prober
	Answered      *prober.Probe // the probe that the peer answers; nil: none

	Encapsulations map[string]finding.Finding // by name; nil: not tried yet
}

// StatusTimeout limits how long the daemon may take to answer.
const StatusTimeout = 5 * time.Second

// NewHost reads the configuration, and asks the daemon for its status. Close the Host after
// use.
func NewHost(o Options) *Host {
	h := &Host{Options: o, File: o.Config, Rules: sync.OnceValues(firewall.Read), Unit: ReadUnit(o.Paths.Units)}
	if h.File == "" {
		h.File = o.Paths.Config
	}
	h.Config, h.Warnings, h.ConfigErr = configfile.LoadLenient(h.File)
	switch {
	case o.Socket != "":
		h.Socket = o.Socket
	case h.Config != nil:
		h.Socket = h.Config.Control.Socket
	default:
		h.Socket = o.Paths.Socket
	}
	ctx, cancel := context.WithTimeout(context.Background(), StatusTimeout)
	defer cancel()
	if s, err := client.Status(ctx, h.Socket); err != nil {
		h.StatusErr = err
	} else {
		h.Status = &s
		h.PID = peerPID(h.Socket)
		h.OtherNamespace = elsewhere(o.Paths.Proc, h.PID)
		h.takeDaemonsFile()
	}
	h.Router, h.RouterErr = netcfg.NewRouter()
	return h
}

// Close closes the connection to the kernel.
func (h *Host) Close() {
	if h.Router != nil {
		h.Router.Close()
	}
}

// takeDaemonsFile selects the configuration file of the running daemon, unless another
// one was named.
func (h *Host) takeDaemonsFile() {
	if h.Options.Config != "" || h.PID == 0 {
		return
	}
	// An unprivileged user may not see the daemon's mount namespace, which mostly has the
	// same file.
	path, _ := h.fileOf(filepath.Join(h.Options.Paths.Proc, fmt.Sprint(h.PID)))
	if path == h.File {
		return
	}
	h.File = path
	h.Config, h.Warnings, h.ConfigErr = configfile.LoadLenient(path)
}

// Tunnels returns the tunnels to check: those named, or all.
func (h *Host) Tunnels(names []string) ([]*Tunnel, error) {
	var all []*Tunnel
	if h.Config != nil {
		for _, c := range h.Config.Tunnels {
			all = append(all, &Tunnel{Host: h, Config: c, FromFile: true, Status: h.statusOf(c.Name)})
		}
	}
	if h.Status != nil {
		for i := range h.Status.Tunnels {
			s := &h.Status.Tunnels[i]
			if !slices.ContainsFunc(all, func(t *Tunnel) bool { return t.Config.Name == s.Name }) {
				all = append(all, &Tunnel{Host: h, Config: configFrom(s), Status: s})
			}
		}
	}
	for _, t := range all {
		t.addPeers()
	}
	if len(names) == 0 {
		for _, t := range all {
			if n := len(t.Peers); n > MaxPeers {
				t.Peers, t.Omitted = t.Peers[:MaxPeers], n-MaxPeers
			}
		}
		return all, nil
	}
	return choose(all, names)
}

// choose returns the tunnels and peers that the names select.
func choose(all []*Tunnel, names []string) (chosen []*Tunnel, err error) {
	var known []string
	for _, t := range all {
		known = append(known, t.Config.Name)
	}
	for _, name := range names {
		tunnelName, peerName, onePeer := strings.Cut(name, "/")
		i := slices.IndexFunc(all, func(t *Tunnel) bool { return t.Config.Name == tunnelName })
		if i < 0 {
			return nil, fmt.Errorf("there is no tunnel %q: there is %s", tunnelName, orNone(known))
		}
		t := *all[i]
		if onePeer {
			t.Peers = slices.DeleteFunc(slices.Clone(t.Peers), func(p *Peer) bool { return p.Label() != peerName })
			if len(t.Peers) == 0 {
				return nil, fmt.Errorf("tunnel %s has no peer %q: sixfourctl status %s shows them", tunnelName, peerName, tunnelName)
			}
		}
		chosen = append(chosen, &t)
	}
	return chosen, nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (h *Host) statusOf(name string) *api.TunnelStatus {
	if h.Status == nil {
		return nil
	}
	for i := range h.Status.Tunnels {
		if s := &h.Status.Tunnels[i]; s.Name == name {
			return s
		}
	}
	return nil
}

// configFrom derives a tunnel's configuration from the daemon's status. Without the file,
// GRE keys and options are not known.
func configFrom(s *api.TunnelStatus) config.Tunnel {
	c := config.Tunnel{Name: s.Name, Interface: config.Interface{Netns: s.Namespace}, Options: encap.DefaultOptions, Hub: len(s.Peers) > 0}
	c.Mode, _ = encap.ModeByName(s.Mode)
	states := []api.PeerStatus{s.PeerStatus}
	if c.Hub {
		states = s.Peers
	}
	for i, k := range c.Mode.Layers {
		l := config.Layer{}
		if i < len(c.Mode.Layers)-1 {
			l.Local = parsed(s.State.Local)
			if k.Over() == 6 {
				l.Local = parsed(s.State.Local6)
			}
		}
		c.Layers = append(c.Layers, l)
	}
	for _, state := range states {
		p := config.Peer{Name: state.Peer, Paths: []config.Path{pathFrom(&s.State, &state.State)}}
		for _, k := range c.Mode.Layers[:max(len(c.Mode.Layers)-1, 0)] {
			remote := state.State.Remote
			if k.Over() == 6 {
				remote = state.State.Remote6
			}
			p.InnerRemotes = append(p.InnerRemotes, parsed(remote))
		}
		c.Peers = append(c.Peers, p)
	}
	return c
}

// pathFrom derives the configuration of a path from the states of the tunnel and of the
// peer. A missing encapsulation means that there is none.
func pathFrom(tunnel, peer *api.State) config.Path {
	p := config.Path{Encap: config.NoEncapsulation, Local: parsed(tunnel.Local), Remote: config.Host{Addr: parsed(peer.Remote)}}
	if peer.Encap != "" {
		p.Encap, p.LocalPort, p.Port, p.Checksum = peer.Encap, peer.LocalPort, peer.Port, true
	}
	return p
}

// parsed returns an address, or the zero Addr if the text is none.
func parsed(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// addPeers adds the tunnel's remote ends.
func (t *Tunnel) addPeers() {
	if t.Config.Mode.Name == config.BrokerMode { // its clients come by themselves
		return
	}
	if m := t.Mechanism(); m >= 0 {
		hosts := t.Config.Layers[m].Mechanism.Hosts()
		if len(hosts) == 0 || m != len(t.Config.Layers)-1 {
			hosts = []config.Host{{}}
		}
		for _, host := range hosts {
			p := &Peer{Tunnel: t, Config: &t.Config.Peers[0], Target: host}
			if t.Status != nil {
				p.Status = &t.Status.PeerStatus
			}
			t.Peers = append(t.Peers, p)
		}
		return
	}
	if len(t.Config.Mode.Layers) == 0 { // a mode that only the file describes
		return
	}
	for i := range t.Config.Peers {
		c := &t.Config.Peers[i]
		t.Peers = append(t.Peers, &Peer{Tunnel: t, Config: c, Status: t.PeerStatus(c.Name), Target: c.Paths[0].Remote})
	}
}

// PeerStatus returns the status of a peer with a name; nil: the daemon does not have it.
func (t *Tunnel) PeerStatus(name string) *api.PeerStatus {
	switch {
	case t.Status == nil:
		return nil
	case len(t.Status.Peers) == 0:
		return &t.Status.PeerStatus
	}
	for i := range t.Status.Peers {
		if s := &t.Status.Peers[i]; s.Peer == name {
			return s
		}
	}
	return nil
}

// Mechanism returns the index of the automatic layer; -1: none.
func (t *Tunnel) Mechanism() int {
	return slices.IndexFunc(t.Config.Layers, func(l config.Layer) bool { return l.Mechanism != nil })
}

// Label returns the displayed name of a peer.
func (p *Peer) Label() string {
	switch {
	case p.Config.Name != "":
		return p.Config.Name
	case p.Target.Name != "":
		return p.Target.Name
	case p.Target.Addr.IsValid():
		return p.Target.Addr.String()
	}
	return "any"
}

// DaemonAddr parses an outer address of the daemon's status; invalid: none in use.
func DaemonAddr(text string) netip.Addr {
	a, _ := netip.ParseAddr(text)
	return a
}

// Close closes the sockets of the Prober, if there is one.
func (p *Peer) Close() {
	if p.Prober != nil {
		p.Prober.Close()
	}
}
