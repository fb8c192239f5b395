package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"os"
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
	"sixfour/internal/firewall"
	"sixfour/internal/netcfg"
)

// host is this host, with what is known of the daemon and its configuration.
type host struct {
	o         Options
	socket    string
	path      string         // of the configuration
	cfg       *config.Config // nil: there is no valid one
	cfgErr    error
	doubts    problem.List // the daemon starts with them, but does not reload
	status    *api.Status  // nil: no daemon answers
	noone     error        // why no daemon answers
	pid       int          // of the daemon; 0: not known
	unit      unit         // the daemon's systemd unit; nil: none
	elsewhere string       // the daemon's network namespace, if it differs from ours

	router    *netcfg.Router
	routerErr error
	rules     func() (*firewall.Ruleset, error)
}

// tunnel is one tunnel of the configuration, of the daemon, or of both.
type tunnel struct {
	h      *host
	cfg    config.Tunnel
	file   bool              // cfg comes from the file, so it is complete
	status *api.TunnelStatus // nil: the daemon does not have it
	peers  []*peer
	unseen int
	failed []string // failed checks
}

// peer is one remote end; in an automatic tunnel, a relay or router that it needs.
type peer struct {
	t      *tunnel
	cfg    *config.Peer
	status *api.PeerStatus // nil: the daemon does not have it
	target config.Host     // outer end; zero: there is none to probe
	failed []string        // failed checks

	// Results of the checks.
	remote, local netip.Addr // outer addresses; invalid: not known
	route         netcfg.Route
	asker         *asker
	asked         *question // the question that the peer answers; nil: none
}

// statusLimit limits how long the daemon may take to answer.
const statusLimit = 5 * time.Second

func newHost(o Options) *host {
	h := &host{o: o, path: o.Config, rules: sync.OnceValues(firewall.Read), unit: readUnit(o.Paths.Units)}
	if h.path == "" {
		h.path = o.Paths.Config
	}
	h.cfg, h.doubts, h.cfgErr = configfile.LoadLenient(h.path)
	switch {
	case o.Socket != "":
		h.socket = o.Socket
	case h.cfg != nil:
		h.socket = h.cfg.Control.Socket
	default:
		h.socket = o.Paths.Socket
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusLimit)
	defer cancel()
	if s, err := client.Status(ctx, h.socket); err != nil {
		h.noone = err
	} else {
		h.status = &s
		h.pid = peerPID(h.socket)
		h.elsewhere = elsewhere(o.Paths.Proc, h.pid)
		h.takeDaemonsFile()
	}
	h.router, h.routerErr = netcfg.NewRouter()
	return h
}

func (h *host) close() {
	if h.router != nil {
		h.router.Close()
	}
}

// elsewhere returns the network namespace of a process, as a path, if it differs from ours;
// "": it does not, or is not known. Some threads of a Go program, even the first one, may be
// in other namespaces: the namespace of most threads counts.
func elsewhere(proc string, pid int) string {
	ours, err := os.Readlink(filepath.Join(proc, "thread-self/ns/net"))
	if err != nil || pid == 0 {
		return ""
	}
	threads, _ := filepath.Glob(filepath.Join(proc, fmt.Sprint(pid), "task/*/ns/net"))
	in, most := make(map[string]int), ""
	var path string
	for _, t := range threads {
		ns, err := os.Readlink(t)
		if err != nil {
			continue
		}
		if in[ns]++; in[ns] > in[most] {
			most, path = ns, t
		}
	}
	if most == "" || most == ours {
		return ""
	}
	return path
}

// takeDaemonsFile selects the configuration file of the running daemon, unless another one
// was named.
func (h *host) takeDaemonsFile() {
	if h.o.Config != "" || h.pid == 0 {
		return
	}
	// An unprivileged user may not see the daemon's mount namespace, which mostly has the same file.
	path, _ := h.fileOf(filepath.Join(h.o.Paths.Proc, fmt.Sprint(h.pid)))
	if path == h.path {
		return
	}
	h.path = path
	h.cfg, h.doubts, h.cfgErr = configfile.LoadLenient(path)
}

// fileOf returns the configuration file of a daemon, from its directory in /proc, as a path
// that leads there from this program's mount namespace. If the daemon runs in another one,
// such as that of a container, the path leads through /proc/PID/root. With an error, it is the
// path in the daemon's mount namespace.
func (h *host) fileOf(dir string) (string, error) {
	path := configOfProcess(dir)
	if path == "" {
		path = h.o.Paths.Config
	}
	through := filepath.Join(dir, "root", path)
	theirs, err := os.Stat(through)
	if err != nil {
		return path, err
	}
	if ours, err := os.Stat(path); err == nil && os.SameFile(ours, theirs) {
		return path, nil
	}
	return through, nil
}

// configOfProcess returns the configuration file with which a daemon was started, from its
// directory in /proc; "": the default, or not known.
func configOfProcess(dir string) string {
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return ""
	}
	path := configOf(strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"))
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	cwd, err := os.Readlink(filepath.Join(dir, "cwd"))
	if err != nil {
		return ""
	}
	return filepath.Join(cwd, path)
}

// configOf returns the value of -config on a command line of sixfourd.
func configOf(args []string) string {
	for i, a := range args {
		flag, dashed := strings.CutPrefix(a, "-")
		name, value, inside := strings.Cut(strings.TrimPrefix(flag, "-"), "=")
		switch {
		case !dashed || name != "config":
		case inside:
			return value
		case i+1 < len(args):
			return args[i+1]
		}
	}
	return ""
}

// tunnels returns the tunnels to check: those named, or all.
func (h *host) tunnels(names []string) ([]*tunnel, error) {
	var all []*tunnel
	if h.cfg != nil {
		for _, c := range h.cfg.Tunnels {
			all = append(all, &tunnel{h: h, cfg: c, file: true, status: h.statusOf(c.Name)})
		}
	}
	if h.status != nil {
		for i := range h.status.Tunnels {
			s := &h.status.Tunnels[i]
			if !slices.ContainsFunc(all, func(t *tunnel) bool { return t.cfg.Name == s.Name }) {
				all = append(all, &tunnel{h: h, cfg: configFrom(s), status: s})
			}
		}
	}
	for _, t := range all {
		t.addPeers()
	}
	if len(names) == 0 {
		for _, t := range all {
			if n := len(t.peers); n > MaxPeers {
				t.peers, t.unseen = t.peers[:MaxPeers], n-MaxPeers
			}
		}
		return all, nil
	}
	return choose(all, names)
}

// choose returns the tunnels and peers that the names select.
func choose(all []*tunnel, names []string) (chosen []*tunnel, err error) {
	var known []string
	for _, t := range all {
		known = append(known, t.cfg.Name)
	}
	for _, name := range names {
		tunnelName, peerName, onePeer := strings.Cut(name, "/")
		i := slices.IndexFunc(all, func(t *tunnel) bool { return t.cfg.Name == tunnelName })
		if i < 0 {
			return nil, fmt.Errorf("there is no tunnel %q: there is %s", tunnelName, orNone(known))
		}
		t := *all[i]
		if onePeer {
			t.peers = slices.DeleteFunc(slices.Clone(t.peers), func(p *peer) bool { return p.label() != peerName })
			if len(t.peers) == 0 {
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

func (h *host) statusOf(name string) *api.TunnelStatus {
	if h.status == nil {
		return nil
	}
	for i := range h.status.Tunnels {
		if s := &h.status.Tunnels[i]; s.Name == name {
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
		p := config.Peer{Name: state.Peer, Paths: []config.Path{{Encap: config.NoEncapsulation, Local: parsed(s.State.Local), Remote: config.Host{Addr: parsed(state.State.Remote)}}}}
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

// parsed returns an address, or the zero Addr if the text is none.
func parsed(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// addPeers adds the tunnel's remote ends.
func (t *tunnel) addPeers() {
	if m := t.mechanism(); m >= 0 {
		hosts := t.cfg.Layers[m].Mechanism.Hosts()
		if len(hosts) == 0 || m != len(t.cfg.Layers)-1 {
			hosts = []config.Host{{}}
		}
		for _, host := range hosts {
			p := &peer{t: t, cfg: &t.cfg.Peers[0], target: host}
			if t.status != nil {
				p.status = &t.status.PeerStatus
			}
			t.peers = append(t.peers, p)
		}
		return
	}
	if len(t.cfg.Mode.Layers) == 0 { // a mode that only the file describes
		return
	}
	for i := range t.cfg.Peers {
		c := &t.cfg.Peers[i]
		t.peers = append(t.peers, &peer{t: t, cfg: c, status: t.peerStatus(c.Name), target: c.Paths[0].Remote})
	}
}

func (t *tunnel) peerStatus(name string) *api.PeerStatus {
	switch {
	case t.status == nil:
		return nil
	case len(t.status.Peers) == 0:
		return &t.status.PeerStatus
	}
	for i := range t.status.Peers {
		if s := &t.status.Peers[i]; s.Peer == name {
			return s
		}
	}
	return nil
}

// mechanism returns the index of the automatic layer; -1: none.
func (t *tunnel) mechanism() int {
	return slices.IndexFunc(t.cfg.Layers, func(l config.Layer) bool { return l.Mechanism != nil })
}

// outer returns the kind of the outermost layer.
func (t *tunnel) outer() encap.Kind { return t.cfg.Mode.Layers[len(t.cfg.Mode.Layers)-1] }

// label returns the displayed name of a peer.
func (p *peer) label() string {
	switch {
	case p.cfg.Name != "":
		return p.cfg.Name
	case p.target.Name != "":
		return p.target.Name
	case p.target.Addr.IsValid():
		return p.target.Addr.String()
	}
	return "any"
}

// daemonAddr parses an outer address of the daemon's status; invalid: none in use.
func daemonAddr(text string) netip.Addr {
	a, _ := netip.ParseAddr(text)
	return a
}

func (p *peer) close() {
	if p.asker != nil {
		p.asker.close()
	}
}
