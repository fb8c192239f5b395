// Package metrics serves the state of the daemon over HTTP: its counters for Prometheus,
// whether the daemon is alive, and whether its tunnels can carry packets.
//
// It counts nothing itself: every scrape reads counters that exist anyway, so it costs
// nothing per packet.
package metrics

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"sixfour/internal/api"
	"sixfour/internal/version"
)

// Logs are the counters of a logger.
type Logs interface {
	Lost() uint64    // lines that could not be written
	Limited() uint64 // lines that exceeded the rate limit
}

// collector converts a status to metrics. It is a prometheus.Collector.
type collector struct {
	status  func() api.Status
	clients Brokers // nil: there are none
	logs    Logs
}

// Describe sends the descriptions of all metrics that Collect may send.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families {
		ch <- f.desc
	}
}

// Collect sends the current metrics.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	o := sink{ch}
	b := version.Get()
	o.add(build, 1, b.Release, b.Commit, b.Go)
	o.add(started, seconds(s.Started))
	o.add(reloads, float64(s.Reloads.Succeeded), "success")
	o.add(reloads, float64(s.Reloads.Failed), "failure")
	o.add(reloadedAt, seconds(s.Reloads.Last))
	o.add(reloadedOK, boolValue(s.Reloads.Error == ""))
	o.add(logLost, float64(c.logs.Lost()))
	o.add(logLimited, float64(c.logs.Limited()))
	o.traffic("", "", "in", &s.Stray)
	o.gateway(s.Gateway)
	o.mapServer(s.LISP)
	if o.broker(s.Broker); c.clients != nil {
		c.clients.BrokerClients(o.client)
	}
	for i := range s.Tunnels {
		o.tunnel(&s.Tunnels[i])
	}
}

// gateway sends the state of [gateway].
func (o sink) gateway(g *api.GatewayStatus) {
	if g == nil {
		return
	}
	if d := g.DefaultRoute; d != nil {
		o.add(defaultRoute, boolValue(d.State == api.GatewayActive), d.Tunnel)
	}
	if m := g.Masquerade; m != nil {
		for _, name := range m.Interfaces {
			o.add(masquerading, boolValue(m.State != api.GatewayFailed && !slices.Contains(m.Missing, name)), name)
		}
	}
	for _, x := range g.Shares {
		o.add(shareActive, boolValue(x.State == api.GatewayActive), x.Tunnel)
		o.add(sharePorts, float64(x.PortCount), x.Tunnel)
	}
}

// broker sends the state of [broker].
func (o sink) broker(b *api.BrokerStatus) {
	if b == nil {
		return
	}
	for protocol, n := range b.Clients {
		o.add(brokerClients, float64(n), protocol)
	}
	for _, r := range b.Refused {
		o.add(brokerRefused, float64(r.Count), r.Protocol, r.Reason)
	}
	o.add(brokerReady, boolValue(b.Error == ""))
	if b.Error == "" {
		o.add(brokerAccounts, float64(b.Accounts))
		o.add(brokerLeases, float64(b.Leases))
		o.add(brokerFree, float64(b.FreePrefixes))
	}
}

// mapServer sends the state of [lisp].
func (o sink) mapServer(m *api.MapServerStatus) {
	if m == nil {
		return
	}
	o.add(lispSites, float64(m.Registered), "registered")
	o.add(lispSites, float64(m.Sites-m.Registered), "unregistered")
	o.add(lispPrefixes, float64(m.Prefixes))
	o.add(lispReady, boolValue(m.Error == ""))
	for what, n := range m.Served {
		o.add(lispServed, float64(n), what)
	}
	for reason, n := range m.Refused {
		o.add(lispRefused, float64(n), reason)
	}
}

// client sends the metrics of a client of the broker.
func (o sink) client(c api.BrokerClient) {
	account := strings.ToValidUTF8(c.Account, "\ufffd")
	for _, d := range []struct {
		name string
		t    *api.BrokerTraffic
	}{{"in", &c.Received}, {"out", &c.Sent}} {
		o.add(brokerPackets, float64(d.t.Packets), account, d.name)
		o.add(brokerBytes, float64(d.t.Bytes), account, d.name)
	}
}

// sink is the destination of metrics.
type sink struct{ ch chan<- prometheus.Metric }

// add sends a metric with values for its family's labels.
func (o sink) add(f *family, value float64, labels ...string) {
	o.ch <- &sample{f, value, f.pairs(labels)}
}

// sample is a metric. A hub with many peers has so many that they share their labels:
// each of the library's constant metrics has a copy of its own.
type sample struct {
	family *family
	value  float64
	labels []*dto.LabelPair // must not be changed
}

// Desc returns the description of the metric's family.
func (s *sample) Desc() *prometheus.Desc { return s.family.desc }

// Write writes the metric in the library's message format.
func (s *sample) Write(m *dto.Metric) error {
	m.Label = s.labels
	if s.family.kind == prometheus.CounterValue {
		m.Counter = &dto.Counter{Value: &s.value}
	} else {
		m.Gauge = &dto.Gauge{Value: &s.value}
	}
	return nil
}

// tunnel sends the metrics of a tunnel and its peers.
func (o sink) tunnel(t *api.TunnelStatus) {
	o.add(info, 1, t.Name, t.Mode, t.Namespace)
	o.add(ready, boolValue(t.State.Phase.Carries()), t.Name)
	if t.State.TunnelMTU > 0 {
		o.add(tunnelMTU, float64(t.State.TunnelMTU), t.Name)
	}
	o.errors(t.Name, "", "out", &t.ICMP.SentTypes)
	o.add(limited, float64(t.ICMP.Limited), t.Name)
	for what, n := range t.Repairs {
		o.add(repairs, float64(n), t.Name, what)
	}
	if s := t.Session; s != nil {
		o.add(sessionUp, boolValue(s.State == api.SessionUp), t.Name)
		for result, n := range s.Attempts {
			o.add(sessionAttempts, float64(n), t.Name, result)
		}
	}
	all := t.Peers
	if len(all) == 0 { // there is only one
		all = []api.PeerStatus{t.PeerStatus}
	} else {
		o.unattributed(t)
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

// unattributed sends the counters of a hub for packets that belong to no peer: the tunnel's
// counters minus those of its peers.
func (o sink) unattributed(t *api.TunnelStatus) {
	in, out := t.In, t.Out
	for i := range t.Peers {
		less(&in, &t.Peers[i].In)
		less(&out, &t.Peers[i].Out)
	}
	o.traffic(t.Name, "", "in", &in)
	o.traffic(t.Name, "", "out", &out)
}

// less subtracts other traffic, down to zero: a peer's packet that the interface refused
// is in the peer's sum, but not in the tunnel's.
func less(t, other *api.Traffic) {
	t.Packets -= min(t.Packets, other.Packets)
	t.Bytes -= min(t.Bytes, other.Bytes)
	for r, n := range other.Drops {
		t.Drops[r] -= n
	}
}

// peer sends the metrics of one peer.
func (o sink) peer(tunnel string, p *api.PeerStatus) {
	o.traffic(tunnel, p.Peer, "in", &p.In)
	o.traffic(tunnel, p.Peer, "out", &p.Out)
	o.errors(tunnel, p.Peer, "in", &p.ICMP.ReceivedTypes)
	labels := up.pairs([]string{tunnel, p.Peer})
	put := func(f *family, value float64) { o.ch <- &sample{f, value, labels} }
	put(ignored, float64(p.ICMP.Ignored))
	put(up, boolValue(p.State.Phase == api.Up || p.State.Phase == api.Suspect))
	put(state, float64(number(p.State.Phase)))
	put(since, seconds(p.State.Since))
	if !p.Liveness.LastPacket.IsZero() {
		put(lastHeard, seconds(p.Liveness.LastPacket))
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
	put(oddECN, float64(p.InvalidECN))
	put(wraps, float64(p.IDRepeats))
	for i := range p.Paths {
		o.path(tunnel, p.Peer, i, &p.Paths[i])
	}
}

// path sends the metrics of one of several paths to a peer.
func (o sink) path(tunnel, peer string, i int, p *api.PathStatus) {
	encap := p.State.Encap
	if encap == "" {
		encap = "none"
	}
	place := []string{tunnel, peer, strconv.Itoa(i + 1), encap}
	labels := pathUp.pairs(place)
	put := func(f *family, value float64) { o.ch <- &sample{f, value, labels} }
	put(pathUp, boolValue(p.State.Phase == api.Up || p.State.Phase == api.Suspect))
	put(pathState, float64(number(p.State.Phase)))
	put(pathShare, p.Share)
	if p.Liveness.RTT > 0 {
		put(pathRTT, p.Liveness.RTT)
	}
	put(pathLoss, p.Liveness.Loss)
	put(pathSent, float64(p.Liveness.Sent))
	put(pathLost, float64(p.Liveness.Lost))
	if p.State.PathMTU > 0 {
		put(onePathMTU, float64(p.State.PathMTU))
	}
	for _, d := range [...]struct {
		name string
		t    *api.Traffic
	}{{"in", &p.In}, {"out", &p.Out}} {
		labels := pathPackets.pairs(append(place[:len(place):len(place)], d.name))
		o.ch <- &sample{pathPackets, float64(d.t.Packets), labels}
		o.ch <- &sample{pathBytes, float64(d.t.Bytes), labels}
	}
}

// traffic sends the counters of one direction: carried packets and drops.
func (o sink) traffic(tunnel, peer, direction string, t *api.Traffic) {
	if tunnel != "" { // a packet that belongs to no tunnel is never carried
		labels := packets.pairs([]string{tunnel, peer, direction})
		o.ch <- &sample{packets, float64(t.Packets), labels}
		o.ch <- &sample{bytesTotal, float64(t.Bytes), labels}
	}
	for reason, n := range t.Drops {
		if n > 0 { // otherwise it belonged to a peer
			o.add(drops, float64(n), tunnel, peer, direction, reason)
		}
	}
}

// errors sends the counters of ICMP errors.
func (o sink) errors(tunnel, peer, direction string, t *api.ICMPTypes) {
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

// The states in the order of their numbers, from bad to good.
var states = [...]api.Phase{api.Starting, api.Waiting, api.Down, api.Probing, api.Suspect, api.Up}

func number(p api.Phase) int {
	for i, s := range states {
		if s == p {
			return i
		}
	}
	return 0
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds returns the seconds since 1970, or 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}
