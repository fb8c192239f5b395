// Package metrics tells the world how the daemon is, over HTTP: its counters to
// Prometheus, whether it lives, and whether its tunnels can carry packets.
//
// Nothing is counted here: every scrape reads what is counted anyhow, so that
// packets pay nothing for it.
package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"sixfour/internal/api"
	"sixfour/internal/version"
)

// Logs are the counters of a logger.
type Logs interface {
	Lost() uint64    // lines that nobody took
	Limited() uint64 // lines that were too many
}

// collector makes metrics of a status. It is a prometheus.Collector.
type collector struct {
	status func() api.Status
	logs   Logs
}

// Describe sends what Collect may send.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families {
		ch <- f.desc
	}
}

// Collect sends what there is now.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	o := out{ch}
	b := version.Get()
	o.add(build, 1, b.Release, b.Commit, b.Go)
	o.add(started, seconds(s.Started))
	o.add(reloads, float64(s.Reloads.Succeeded), "success")
	o.add(reloads, float64(s.Reloads.Failed), "failure")
	o.add(reloadedAt, seconds(s.Reloads.Last))
	o.add(reloadedOK, truth(s.Reloads.Error == ""))
	o.add(logLost, float64(c.logs.Lost()))
	o.add(logLimited, float64(c.logs.Limited()))
	o.traffic("", "", "in", &s.Stray)
	o.gateway(s.Gateway)
	for i := range s.Tunnels {
		o.tunnel(&s.Tunnels[i])
	}
}

// gateway sends what [gateway] came to.
func (o out) gateway(g *api.GatewayStatus) {
	if g == nil {
		return
	}
	if d := g.DefaultRoute; d != nil {
		o.add(defaultRoute, truth(d.State == api.HalfActive), d.Tunnel)
	}
	if m := g.Masquerade; m != nil {
		for _, name := range m.Interfaces {
			o.add(masquerading, truth(m.State != api.HalfFailed && !slices.Contains(m.Missing, name)), name)
		}
	}
}

// out is where metrics go.
type out struct{ ch chan<- prometheus.Metric }

// add sends a metric with the values of its family's labels.
func (o out) add(f *family, value float64, labels ...string) {
	o.ch <- &sample{f, value, f.pairs(labels)}
}

// sample is a metric. Those of a large hub are so many that they share what they
// can: the library's own constant metrics have labels each for itself.
type sample struct {
	family *family
	value  float64
	labels []*dto.LabelPair // not changed by anybody
}

// Desc describes the metric's family.
func (s *sample) Desc() *prometheus.Desc { return s.family.desc }

// Write writes the metric as it is sent.
func (s *sample) Write(m *dto.Metric) error {
	m.Label = s.labels
	if s.family.kind == prometheus.CounterValue {
		m.Counter = &dto.Counter{Value: &s.value}
	} else {
		m.Gauge = &dto.Gauge{Value: &s.value}
	}
	return nil
}

// tunnel sends what is known of a tunnel and its peers.
func (o out) tunnel(t *api.TunnelStatus) {
	o.add(info, 1, t.Name, t.Mode, t.Namespace)
	o.add(ready, truth(t.State.Phase.Carries()), t.Name)
	if t.State.TunnelMTU > 0 {
		o.add(tunnelMTU, float64(t.State.TunnelMTU), t.Name)
	}
	o.errors(t.Name, "", "out", &t.ICMP.SentTypes)
	o.add(limited, float64(t.ICMP.Limited), t.Name)
	for what, n := range t.Repairs {
		o.add(repairs, float64(n), t.Name, what)
	}
	all := t.Peers
	if len(all) == 0 { // the only one
		all = []api.PeerStatus{t.PeerStatus}
	} else {
		o.blameless(t)
	}
	var in [len(states)]int
	for i := range all {
		o.peer(t.Name, &all[i])
		in[number(all[i].State.Phase)]++
	}
	for i, s := range states {
		o.add(peers, float64(in[i]), t.Name, string(s))
	}
}

// blameless sends a hub's packets for which no peer is to blame: the tunnel's
// less those of its peers.
func (o out) blameless(t *api.TunnelStatus) {
	in, out := t.In, t.Out
	for i := range t.Peers {
		less(&in, &t.Peers[i].In)
		less(&out, &t.Peers[i].Out)
	}
	o.traffic(t.Name, "", "in", &in)
	o.traffic(t.Name, "", "out", &out)
}

// less takes other traffic away, as far as there is any: a peer's packet that the
// interface refused is only in the tunnel's sum not one that was carried.
func less(t, other *api.Traffic) {
	t.Packets -= min(t.Packets, other.Packets)
	t.Bytes -= min(t.Bytes, other.Bytes)
	for r, n := range other.Drops {
		t.Drops[r] -= n
	}
}

// peer sends what is known of one peer.
func (o out) peer(tunnel string, p *api.PeerStatus) {
	o.traffic(tunnel, p.Peer, "in", &p.In)
	o.traffic(tunnel, p.Peer, "out", &p.Out)
	o.errors(tunnel, p.Peer, "in", &p.ICMP.HeardTypes)
	labels := up.pairs([]string{tunnel, p.Peer})
	put := func(f *family, value float64) { o.ch <- &sample{f, value, labels} }
	put(ignored, float64(p.ICMP.Ignored))
	put(up, truth(p.State.Phase == api.Up || p.State.Phase == api.Suspect))
	put(state, float64(number(p.State.Phase)))
	put(since, seconds(p.State.Since))
	if !p.Liveness.Heard.IsZero() {
		put(heard, seconds(p.Liveness.Heard))
	}
	if p.Liveness.RTT > 0 {
		put(rtt, p.Liveness.RTT)
	}
	put(loss, p.Liveness.Loss)
	put(sent, float64(p.Liveness.Sent))
	put(lost, float64(p.Liveness.Lost))
	put(answered, float64(p.Answered))
	if p.State.PathMTU > 0 {
		put(pathMTU, float64(p.State.PathMTU))
	}
	put(mtuSent, float64(p.Probes.Sent))
	put(mtuAnswers, float64(p.Probes.Answered))
	put(oddECN, float64(p.OddECN))
	put(wraps, float64(p.IDWraps))
}

// traffic sends what went one way, and what did not.
func (o out) traffic(tunnel, peer, direction string, t *api.Traffic) {
	if tunnel != "" { // what belongs to none is not carried
		labels := packets.pairs([]string{tunnel, peer, direction})
		o.ch <- &sample{packets, float64(t.Packets), labels}
		o.ch <- &sample{octets, float64(t.Bytes), labels}
	}
	for reason, n := range t.Drops {
		if n > 0 { // else it was a peer's
			o.add(drops, float64(n), tunnel, peer, direction, reason)
		}
	}
}

// errors sends the ICMP errors that there were.
func (o out) errors(tunnel, peer, direction string, t *api.ICMPTypes) {
	for _, kind := range [...]struct {
		name string
		n    uint64
	}{
		{"unreachable", t.Unreachable},
		{"too_big", t.TooBig},
		{"time_exceeded", t.TimeExceeded},
		{"parameter_problem", t.Parameter},
		{"other", t.Other},
	} {
		if kind.n > 0 {
			o.add(icmps, float64(kind.n), tunnel, peer, direction, kind.name)
		}
	}
}

// states in the order of their numbers, from bad to good.
var states = [...]api.Phase{api.Starting, api.Waiting, api.Down, api.Probing, api.Suspect, api.Up}

func number(p api.Phase) int {
	for i, s := range states {
		if s == p {
			return i
		}
	}
	return 0
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds since 1970, 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}
