package peercheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/prober"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/firewall"
)

// Encapsulation returns the check of one encapsulation: whether packets in it pass to the
// peer and back. The first of these checks tries all encapsulations at the same time, and
// the others use its results.
func Encapsulation(name string) func(context.Context, *subject.Peer) finding.Finding {
	return func(ctx context.Context, p *subject.Peer) finding.Finding {
		switch f, ok := mayProbe(p); {
		case !ok:
			return f
		case p.Tunnel.Mechanism() >= 0:
			return finding.Skipped("automatic modes have no encapsulations")
		}
		if p.Encapsulations == nil {
			p.Encapsulations = tryEncapsulations(ctx, p)
		}
		if f, ok := p.Encapsulations[name]; ok {
			return f
		}
		return finding.Skipped("mode %s has no such encapsulation", p.Tunnel.Config.Mode.Name)
	}
}

// tryEncapsulations tries each encapsulation that the mode can have: on the first configured
// path that has it, or else with its usual ports.
func tryEncapsulations(ctx context.Context, p *subject.Peer) map[string]finding.Finding {
	var trials []*trial
	outermost := p.Tunnel.Config.Kind(len(p.Tunnel.Config.Layers) - 1)
	known := knownProbe(ctx, p)
	for i := range config.Encapsulations {
		e := &config.Encapsulations[i]
		if e.Carries != nil && !e.Carries(outermost) {
			continue
		}
		paths := p.Config.Paths
		t := &trial{Peer: p, encap: e}
		switch n := slices.IndexFunc(paths, func(path config.Path) bool { return path.Encap == e.Name }); {
		case n >= 0 && (e.Session != nil || paths[n].Listen || stateOf(p, n).IO == string(config.IOXDP)):
			t.number = n + 1
		case n >= 0:
			t = newTrial(p, e, &paths[n], n)
			if t.probe == nil {
				t.probe = known
			}
		case e.Ports && e.Session == nil:
			t = newTrial(p, e, &config.Path{Encap: e.Name, Port: e.Port, LocalPort: e.Port, Checksum: true}, -1)
			t.probe = known
		}
		trials = append(trials, t)
	}
	if !slices.ContainsFunc(trials, func(t *trial) bool { return t.encap.Name == HTTPS }) { // TCP port 443 is worth knowing in any mode
		trials = append(trials, &trial{Peer: p, encap: &config.Encapsulation{Name: HTTPS, Session: config.HTTPS{}}})
	}
	// All sockets are open now: an answer may come by any path.
	findings := make([]finding.Finding, len(trials))
	var wg sync.WaitGroup
	for i, t := range trials {
		wg.Go(func() { findings[i] = t.run(ctx, p) })
	}
	wg.Wait()
	all := make(map[string]finding.Finding)
	for i, t := range trials {
		t.close(p)
		all[t.encap.Name] = findings[i]
	}
	return all
}

// knownProbe returns a probe between inner addresses that the peer answers whatever the path
// is; nil: none is known.
func knownProbe(ctx context.Context, p *subject.Peer) *prober.Probe {
	if p.Answered == nil || p.Prober == nil {
		return nil
	}
	var probes []prober.Probe
	if layers := p.Prober.Layers; len(layers) > 1 && p.Answered.Kind == prober.Inside { // between the ends of the inner layer
		return p.Answered
	}
	for _, c := range p.Tunnel.Config.Inside(p.Config) {
		probes = append(probes, prober.Probe{Local: c.Local, Remote: c.Remote})
	}
	for i, o := range p.Prober.SendAll(ctx, probes) {
		if o.Answered() {
			return &probes[i]
		}
	}
	return nil
}

// run tries the encapsulation to the peer p.
func (t *trial) run(ctx context.Context, p *subject.Peer) finding.Finding {
	switch {
	case t.Peer != p && t.number == 1 && p.Answered == nil:
		return finding.Skipped("the check answer says whether it passes")
	case t.Peer != p && t.number > 0:
		return t.configured(ctx, p)
	case t.Peer != p:
		return t.unconfigured(ctx)
	case t.number > 0:
		return asReported(p, t.number-1)
	case t.encap.Session != nil:
		return trySession(ctx, p, t.encap)
	}
	return finding.Skipped("not configured here, so that the peer would drop it: whether protocol %d passes cannot be tried", p.Tunnel.Config.Kind(len(p.Tunnel.Config.Layers)-1).Protocol()).WithRemedy(linesFor(p, t.encap))
}

// stateOf returns what the daemon reports of a configured path; zero: nothing.
func stateOf(p *subject.Peer, path int) (s api.State) {
	switch {
	case p.Status == nil:
	case path < len(p.Status.Paths):
		s = p.Status.Paths[path].State
	case path == 0:
		s = p.Status.State
	}
	return s
}

// asReported returns what the daemon reports of a path whose packets this program cannot
// make or receive: it has no keys, no sockets of AF_XDP, and does not know who has come.
func asReported(p *subject.Peer, path int) finding.Finding {
	s := stateOf(p, path)
	switch {
	case s.Phase == "":
		return finding.Skipped("only the daemon can try it, and none runs this path")
	case s.Phase == api.Up:
		return finding.Passed("the daemon reports that path %d is up", path+1)
	case s.Phase == api.Down || s.Phase == api.Suspect:
		return finding.Skipped("the daemon reports that path %d is %s: %s", path+1, s.Phase, s.Detail)
	case s.Detail != "":
		return finding.Skipped("the daemon reports that path %d waits for %s", path+1, s.Detail)
	}
	return finding.Skipped("the daemon reports that path %d is %s", path+1, s.Phase)
}

// answersUnseen reports whether a path to the peer carries packets that this program does
// not see, such as encrypted ones: answers may come by it.
func answersUnseen(p *subject.Peer) bool {
	if p.Status == nil {
		return false
	}
	return slices.ContainsFunc(p.Status.Paths, func(s api.PathStatus) bool {
		e := slices.IndexFunc(config.Encapsulations, func(e config.Encapsulation) bool { return e.Name == s.State.Encap })
		return s.Used && (s.State.IO == string(config.IOXDP) || e >= 0 && config.Encapsulations[e].Session != nil)
	})
}

// trial is an attempt with one encapsulation.
type trial struct {
	*subject.Peer // with this path only; the peer itself if this program cannot send
	encap         *config.Encapsulation
	number        int           // of the path, from 1; 0: it is not configured
	probe         *prober.Probe // that the peer answers; nil: not known
	err           error
}

// newTrial prepares an attempt on a path, given with its index; -1: it is not configured.
func newTrial(p *subject.Peer, e *config.Encapsulation, path *config.Path, index int) *trial {
	c := *p.Config
	c.Paths = []config.Path{*path}
	t := &trial{Peer: &subject.Peer{Tunnel: p.Tunnel, Config: &c, Remote: p.Remote, Local: p.Local, Route: p.Route}, encap: e, number: index + 1}
	if index == 0 && p.Answered != nil && p.Answered.Kind != prober.Outside {
		t.probe = p.Answered
	}
	s := stateOf(p, max(index, 0))
	for _, a := range []netip.Addr{path.Remote.Addr, subject.DaemonAddr(s.Remote)} {
		if a.IsValid() && index >= 0 {
			t.Remote = a
			break
		}
	}
	switch {
	case path.Local.IsValid():
		t.Local = path.Local
	case index > 0 && subject.DaemonAddr(s.Local).IsValid():
		t.Local = subject.DaemonAddr(s.Local)
	}
	if t.Remote != p.Remote || t.Local != p.Local {
		if t.Route, t.err = p.Tunnel.Host.Router.To(t.Remote, t.Local, p.Tunnel.Config.FwMark); t.err != nil {
			return t
		}
	}
	t.err = openProber(t.Peer, p.Prober)
	return t
}

func (t *trial) close(p *subject.Peer) {
	if t.Peer != p {
		t.Peer.Close()
	}
}

// send probes the peer. It returns the best outcome, and whether a peer with this path must
// have answered.
func (t *trial) send(ctx context.Context, once bool) (o prober.Outcome, sure bool) {
	all := candidates(t.Peer, t.Prober.Layers)
	probes := make([]prober.Probe, 0, len(all)+1)
	if t.probe != nil {
		probes, sure = append(probes, *t.probe), true
	} else {
		for _, c := range all {
			probes, sure = append(probes, c.Probe), sure || c.sure
		}
	}
	outcomes := make([]prober.Outcome, len(probes))
	var wg sync.WaitGroup
	for i := range probes {
		wg.Go(func() {
			if once {
				outcomes[i] = t.Prober.SendOnce(ctx, probes[i])
			} else {
				outcomes[i] = t.Prober.Send(ctx, probes[i])
			}
		})
	}
	wg.Wait()
	for i, one := range outcomes {
		switch {
		case one.Answered():
			t.probe = &probes[i]
			return one, sure
		case one.Replied && !o.Replied, one.Err != nil && !o.Replied:
			o = one
		}
	}
	return o, sure
}

// configured tries a path of the configuration.
func (t *trial) configured(ctx context.Context, p *subject.Peer) finding.Finding {
	if t.err != nil {
		return finding.Skipped("path %d cannot be tried: %v", t.number, t.err)
	}
	o, sure := t.send(ctx, false)
	switch {
	case o.Answered():
		return finding.Passed("%s passes on path %d, in %v%s", t.Traffic(firewall.Output), t.number, o.RTT.Round(10*time.Microsecond), t.sizes(ctx))
	case answersUnseen(p):
		return asReported(p, t.number-1)
	case !sure:
		return finding.Skipped("path %d: no inner address of the peer is known, and nothing answers", t.number)
	}
	why := "no answer comes back"
	if o.Err != nil {
		why = o.Err.Error()
	} else if o.Replied {
		why = describeError(t.Peer, o, "a packet of the tunnel")
	}
	return finding.Failed(fmt.Sprintf("accept %s from %v to %v, and %s back, on the path and in the packet filters of both ends; the peer must have the same path, with local and remote, and the ports, exchanged",
		t.Traffic(firewall.Output), t.Local, t.Remote, t.Traffic(firewall.Input)), "%s does not pass on path %d: %s", t.Traffic(firewall.Output), t.number, why)
}

// sizes tries what may not pass although small packets do: large packets, fragments and
// congestion marks.
func (t *trial) sizes(ctx context.Context) string {
	large, pieces, plain, marked := *t.probe, *t.probe, *t.probe, *t.probe
	large.Size = min(t.Route.MTU, ethernet)
	pieces.Size, pieces.Fragmented = fragmentedSize, true
	plain.InnerECN, plain.OuterECN = header.ECT0, header.ECT0
	marked.InnerECN, marked.OuterECN = header.ECT0, header.CE
	o := t.Prober.SendAll(ctx, []prober.Probe{large, pieces, plain, marked})
	say := func(name string, passes bool) string {
		if passes {
			return "; " + name + " pass"
		}
		return "; " + name + " do not pass"
	}
	text := say(fmt.Sprintf("packets of %d bytes", large.Size), o[0].Answered()) + say("fragments", o[1].Answered())
	switch {
	case t.Tunnel.Config.Options.ECNCompat:
		return text
	case !o[2].Answered() || !o[3].Answered():
		return text + "; packets with ECN marks do not pass"
	case o[2].InnerECN == header.NotECT:
		return text + "; whether ECN marks pass is not known"
	}
	return text + say("ECN marks", o[3].InnerECN == header.CE)
}

// ethernet is the usual MTU of a link.
const ethernet = 1500

// unconfigured tries an encapsulation that this end does not have. The peer answers only if
// it has such a path, with the usual ports.
func (t *trial) unconfigured(ctx context.Context) finding.Finding {
	if t.err != nil {
		return finding.Skipped("it cannot be tried: %v", t.err)
	}
	what := t.Traffic(firewall.Output)
	switch o, _ := t.send(ctx, true); {
	case o.Answered():
		return finding.Passed("%s passes, and the peer has such a path; this end has not%s", what, t.sizes(ctx)).WithRemedy(linesFor(t.Peer, t.encap))
	case o.Err != nil:
		return finding.Skipped("it is not configured here, and cannot be tried: %v", o.Err)
	case o.Replied && closedPort(o.Reply.ICMP) && o.From == t.Remote:
		return finding.Skipped("not configured at the peer: %s reaches its host, which answers that the port is closed", what).WithRemedy(linesFor(t.Peer, t.encap))
	case o.Replied:
		return finding.Skipped("not configured here: %s", describeError(t.Peer, o, "a packet to "+what))
	}
	return finding.Skipped("not configured here, and nothing answers at %s: it is not configured at the peer either, or a filter drops it", what).WithRemedy(linesFor(t.Peer, t.encap))
}

// closedPort reports whether an ICMP error says that a port is closed.
func closedPort(e icmp.Error) bool {
	if e.Version == 6 {
		return e.Type == icmp.Unreachable6 && e.Code == 4
	}
	return e.Type == icmp.Unreachable4 && e.Code == 3
}

// configuredPaths returns the paths to the peer that the configuration has.
func configuredPaths(p *subject.Peer) []config.Path {
	all := p.Tunnel.Config.Peers
	return all[slices.IndexFunc(all, func(o config.Peer) bool { return o.Name == p.Config.Name })].Paths
}

// linesFor returns the lines that add a path with an encapsulation at both ends.
func linesFor(p *subject.Peer, e *config.Encapsulation) string {
	table, place := "[[tunnel.path]]", "[[tunnel]] "+p.Tunnel.Config.Name
	if p.Tunnel.Config.Hub {
		table, place = "[[tunnel.peer.path]]", "the [[tunnel.peer]] at the hub, and [[tunnel.path]] at the peer"
	}
	lines := []string{"to use it, add to " + place + ", at both ends, then sixfourctl reload:"}
	if paths := configuredPaths(p); len(paths) == 1 && paths[0].Encap == config.NoEncapsulation {
		lines = append(lines, table+"   # the present path, unless the file has this line already")
	}
	lines = append(lines, table, fmt.Sprintf("encap = %q", e.Name))
	if e.Ports {
		lines = append(lines, fmt.Sprintf("port = %d", e.Port))
	}
	return strings.Join(lines, "\n")
}

// connectTimeout limits how long a TCP connection may take to be established.
const connectTimeout = 3 * time.Second

// tcp443 says what a TCP connection to port 443 of the peer shows.
func tcp443(ctx context.Context, p *subject.Peer) string {
	d := net.Dialer{Timeout: connectTimeout, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Local, 0))}
	if mark := int(p.Tunnel.Config.FwMark); mark != 0 {
		d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) }); e != nil {
				return e
			}
			return err
		}
	}
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(p.Remote, 443).String())
	switch {
	case err == nil:
		c.Close()
		return "TCP port 443 passes: a program accepts connections there"
	case errors.Is(err, unix.ECONNREFUSED):
		return "TCP port 443 passes: the peer's host answers that no program accepts connections there"
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EACCES):
		return "TCP port 443 does not pass: " + err.Error()
	}
	return fmt.Sprintf("TCP port 443 does not pass: nothing answers within %v", connectTimeout)
}

// trySession says what is known of an encapsulation with connections that this end does not
// have: nobody answers a stranger.
func trySession(ctx context.Context, p *subject.Peer, e *config.Encapsulation) finding.Finding {
	if e.Name == HTTPS {
		return finding.Skipped("not configured here; %s", tcp443(ctx, p))
	}
	return finding.Skipped("not configured here, and it cannot be tried without: a peer does not answer unknown keys")
}

// HTTPS is the name of the encapsulation whose connections may be TCP to port 443.
const HTTPS = "https"
