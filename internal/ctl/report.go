package ctl

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sixfour/internal/api"
)

// report formats the status as lines of text.
func report(s api.Status, now time.Time) [][]cell {
	var r reporter
	r.now = now
	for i, t := range s.Tunnels {
		if i > 0 {
			r.line()
		}
		r.tunnel(t)
	}
	r.broker(s.Broker)
	r.mapServer(s.LISP)
	r.gateway(s.Gateway)
	if len(s.Stray.Drops) > 0 {
		r.line(cell{"packets of no tunnel", none})
		r.drops("in", s.Stray)
		r.unknownSources(s.UnknownSources)
	}
	return r.lines
}

type reporter struct {
	lines [][]cell
	now   time.Time
}

func (r *reporter) line(cells ...cell) { r.lines = append(r.lines, cells) }

// field adds a line below that of a tunnel.
func (r *reporter) field(name, format string, args ...any) {
	r.line(cell{fmt.Sprintf("  %-10s ", name), faint}, cell{plain(fmt.Sprintf(format, args...)), none})
}

func (r *reporter) tunnel(t api.TunnelStatus) {
	name := t.Name
	if len(t.Peers) == 0 && t.Peer != "" {
		name += "/" + t.Peer
	}
	r.line(cell{plain(name), bold}, cell{"  " + t.Mode + "  ", none}, phase(t.State), cell{" for " + r.since(t.State.Since), none})
	if t.State.Detail != "" {
		r.field(why(t.State), "%s", t.State.Detail)
	}
	switch {
	case len(t.Peers) > 0:
		r.field("outer", "%s > %d peers, through %s", t.State.Local, len(t.Peers), way(&t.State))
		r.field("peers", "%s", phases(t.Peers))
	case t.State.Local != "":
		local, remote := ends(&t.State)
		if t.State.Encap != "" {
			local = t.State.Encap + " " + local
		}
		r.field("outer", "%s > %s, path MTU %d (%s), through %s", local, remote, t.State.PathMTU, known(t.State.PathMTUBy), way(&t.State))
	}
	switch {
	case t.State.Local6 == "":
	case len(t.Peers) > 0:
		r.field("IPv6 layer", "%s > %d peers", t.State.Local6, len(t.Peers))
	default:
		r.field("IPv6 layer", "%s > %s", t.State.Local6, t.State.Remote6)
	}
	if t.State.TunnelMTU != 0 {
		r.field("interface", "MTU %d%s", t.State.TunnelMTU, inside(t.Namespace))
	}
	r.liveness(t.Liveness)
	r.paths(t.Paths)
	r.traffic("out", t.Out)
	r.traffic("in", t.In)
	r.exceptions(t.PeerStatus)
	r.problems(t.PeerStatus)
	if len(t.Repairs) > 0 {
		r.field("repairs", "%s", counts(t.Repairs))
	}
	r.addressUpdate(t.AddressUpdate)
	r.session(t.Session)
	r.neighbours(t.Neighbours)
	if len(t.Peers) > 0 {
		r.lines = append(r.lines, r.peers(t.Peers).lines(2)...)
	}
}

// shownNeighbours is how many neighbours are shown, so that a large link does not hide the
// rest. The API returns all.
const shownNeighbours = 20

// neighbours shows the other nodes that a mechanism knows.
func (r *reporter) neighbours(all []api.Neighbour) {
	name := "neighbours"
	for i, n := range all {
		if i == shownNeighbours {
			r.field("", "and %d more", len(all)-i)
			return
		}
		outer := n.Outer
		if outer == "" {
			outer = "an unknown outer address"
		}
		text := fmt.Sprintf("%s at %s, %s", n.Address, outer, n.State)
		if n.Age > 0 {
			text += ", " + r.since(r.now.Add(-time.Duration(n.Age*float64(time.Second)))) + " ago"
		}
		r.field(name, "%s", text)
		name = ""
	}
}

// paths shows each of several paths to a peer.
func (r *reporter) paths(all []api.PathStatus) {
	for i, p := range all {
		text := string(p.State.Phase) + " for " + r.since(p.State.Since)
		switch {
		case p.Share > 0 && p.Share < 1:
			text += fmt.Sprintf(", used by %s of the flows", percent(p.Share))
		case p.Used:
			text += ", used"
		}
		if local, remote := ends(&p.State); local != "" {
			text += ": " + strings.TrimSpace(fmt.Sprintf("%s %s > %s", p.State.Encap, local, remote))
		}
		if p.Liveness.RTT > 0 {
			text += ", RTT " + milliseconds(p.Liveness.RTT)
		}
		if p.State.PathMTU > 0 {
			text += fmt.Sprintf(", path MTU %d", p.State.PathMTU)
		}
		text += fmt.Sprintf(", %d packets out, %d in", p.Out.Packets, p.In.Packets)
		r.field(fmt.Sprintf("path %d", i+1), "%s", text)
		if p.State.Detail != "" {
			r.field("", "%s %s", why(p.State), p.State.Detail)
		} else if !p.Used && p.Why != "" {
			r.field("", "not used for %s: %s", r.since(p.WhySince), p.Why)
		}
		if p.Liveness.Marks == api.MarksRemoved {
			r.field("", "%s", marksRemoved)
		}
	}
}

func (r *reporter) liveness(l api.Liveness) {
	var facts []string
	if l.RTT > 0 {
		facts = append(facts, "RTT "+milliseconds(l.RTT))
	}
	if l.Sent > 0 {
		facts = append(facts, probes(l))
	}
	if !l.LastPacket.IsZero() {
		facts = append(facts, "last confirmed "+r.since(l.LastPacket)+" ago")
	}
	if len(facts) > 0 {
		r.field("liveness", "%s", strings.Join(facts, ", "))
	}
	if l.Marks == api.MarksRemoved {
		r.field("ECN", "%s", marksRemoved)
	}
}

// shareFrom is the least number of probes for which a percentage is shown.
const shareFrom = 5

func probes(l api.Liveness) string {
	text := fmt.Sprintf("%d probes, %d lost", l.Sent, l.Lost)
	if l.Sent == 1 {
		text = fmt.Sprintf("1 probe, %d lost", l.Lost)
	}
	if l.Missed > 0 {
		text += fmt.Sprintf(" (the last %d)", l.Missed)
	}
	if l.Sent >= shareFrom {
		text = "loss " + percent(l.Loss) + "; " + text
	}
	return text
}

func (r *reporter) traffic(direction string, t api.Traffic) {
	r.field(direction, "%d packets, %d bytes", t.Packets, t.Bytes)
	r.drops(direction, t)
}

func (r *reporter) drops(direction string, t api.Traffic) {
	if len(t.Drops) > 0 {
		r.field("dropped "+direction, "%s", counts(t.Drops))
	}
}

// gateway shows the state of the [gateway] section.
func (r *reporter) gateway(g *api.GatewayStatus) {
	if g == nil {
		return
	}
	r.line()
	r.line(cell{"gateway", bold})
	half := func(name string, s api.GatewayState, detail, what string) {
		look := map[api.GatewayState]style{api.GatewayActive: green, api.GatewayWaiting: yellow, api.GatewayFailed: red}[s]
		r.line(cell{fmt.Sprintf("  %-10s ", name), faint}, cell{string(s), look}, cell{plain(": " + what), none})
		if detail != "" {
			r.field("", "because %s", detail)
		}
	}
	if d := g.DefaultRoute; d != nil {
		what := "all packets"
		switch {
		case !d.IPv6:
			what = "all IPv4 packets"
		case !d.IPv4:
			what = "all IPv6 packets"
		}
		what += " without another route go into " + d.Tunnel
		if len(d.Bypass) > 0 {
			what += ", except to " + strings.Join(d.Bypass, ", ")
		}
		half("default", d.State, d.Detail, what)
	}
	if m := g.Masquerade; m != nil {
		half("masquerade", m.State, m.Detail, "packets from the tunnels leave through "+strings.Join(m.Interfaces, ", ")+" with its address")
	}
	for _, x := range g.Shares {
		half("share", x.State, x.Detail, fmt.Sprintf("IPv4 into %s has the address %s and %s", x.Tunnel, x.Address, portList(x.Ports, x.PortCount)))
	}
	for _, a := range g.Advice {
		r.field("advice", "%s", a)
	}
}

// portList describes ranges of ports, all or the first of them.
func portList(ranges []string, count int) string {
	const most = 3
	more := ""
	if len(ranges) > most {
		ranges, more = ranges[:most], ", …"
	}
	return fmt.Sprintf("%d ports: %s%s", count, strings.Join(ranges, ", "), more)
}

// unknownSources shows the latest outer source addresses that belong to no peer.
func (r *reporter) unknownSources(all []api.UnknownSource) {
	const most = 3
	var list []string
	for _, s := range all[:min(len(all), most)] {
		list = append(list, fmt.Sprintf("%s (protocol %d, %s ago)", s.From, s.Protocol, r.since(s.Last)))
	}
	if len(list) > 0 {
		r.field("from", "%s", strings.Join(list, ", "))
	}
}

// exceptions shows counts that are zero for most tunnels.
func (r *reporter) exceptions(p api.PeerStatus) {
	if errors := icmpErrors(p.ICMP); len(errors) > 0 {
		r.field("ICMP", "errors: %s", strings.Join(errors, ", "))
	}
	if p.InvalidECN > 0 {
		r.field("ECN", "%d packets with an invalid combination of inner and outer fields", p.InvalidECN)
	}
	if p.IDRepeats > 0 {
		r.field("fragments", "IPv4 identifications repeated %d times too soon", p.IDRepeats)
	}
	if p.Answered > 0 {
		r.field("answered", "%d echo requests and keepalives of the peer", p.Answered)
	}
}

// icmpErrors lists the counts of ICMP errors that are not zero.
func icmpErrors(i api.ICMP) (list []string) {
	for _, c := range []struct {
		n    uint64
		what string
	}{
		{i.Received, "received about our packets"},
		{i.Ignored, "received and ignored"},
		{i.Sent, "sent to inner senders"},
		{i.Limited, "not sent because of the rate limit"},
	} {
		if c.n > 0 {
			list = append(list, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return list
}

func (r *reporter) problems(p api.PeerStatus) {
	if e := p.LastError; e != nil {
		r.field("last error", "%s ago: %s", r.since(e.At), e.What)
	}
	if o := p.LastDown; o != nil {
		r.field("last down", "%s", r.outage(*o))
	}
}

func (r *reporter) outage(o api.Outage) string {
	const layout = "2006-01-02 15:04:05"
	if o.Until.IsZero() {
		return fmt.Sprintf("since %s (%s): %s", o.From.Local().Format(layout), r.since(o.From), o.Why)
	}
	return fmt.Sprintf("%s, for %s: %s", o.From.Local().Format(layout), formatDuration(o.Until.Sub(o.From)), o.Why)
}

func (r *reporter) since(t time.Time) string { return formatDuration(r.now.Sub(t)) }

// peers shows each of many peers in a line, and below it why it carries no packets.
func (r *reporter) peers(peers []api.PeerStatus) *table {
	t := &table{
		heading: []string{"PEER", "STATE", "FOR", "REMOTE", "RTT", "LOSS", "PATH MTU", "OUT", "BYTES", "IN", "BYTES", "DROPPED"},
		numbers: []bool{false, false, true, false, true, true, true, true, true, true, true, false},
	}
	for _, p := range peers {
		rtt, loss, mtu := quality(p)
		one := row{cells: []cell{
			{plain(p.Peer), none}, phase(p.State), {r.since(p.State.Since), none}, {plain(p.State.Remote), none}, {rtt, none}, {loss, none}, {mtu, none},
			{scaled(float64(p.Out.Packets), ""), none}, {scaled(float64(p.Out.Bytes), "B"), none},
			{scaled(float64(p.In.Packets), ""), none}, {scaled(float64(p.In.Bytes), "B"), none}, {dropped(p), none},
		}}
		switch {
		case p.State.Detail != "":
			one.under = why(p.State) + " " + plain(p.State.Detail)
		case p.LastDown != nil && p.LastDown.Until.IsZero():
			one.under = plain("down " + r.outage(*p.LastDown))
		case len(p.Paths) > 0:
			one.under = pathInUse(p.Paths)
		}
		t.rows = append(t.rows, one)
	}
	return t
}

// pathInUse says which of several paths packets use.
func pathInUse(paths []api.PathStatus) string {
	for i, p := range paths {
		if p.Used {
			return fmt.Sprintf("uses path %d of %d", i+1, len(paths))
		}
	}
	return fmt.Sprintf("uses none of %d paths", len(paths))
}

// quality returns the RTT, loss and path MTU of a peer, as far as they are known.
func quality(p api.PeerStatus) (rtt, loss, mtu string) {
	if p.Liveness.RTT > 0 {
		rtt = milliseconds(p.Liveness.RTT)
	}
	if p.Liveness.Sent > 0 {
		loss = percent(p.Liveness.Loss)
	}
	if p.State.PathMTU > 0 {
		mtu = fmt.Sprint(p.State.PathMTU)
	}
	return rtt, loss, mtu
}

// why returns the words that introduce a state's detail.
func why(s api.State) string {
	if s.Phase == api.Waiting {
		return "waits for"
	}
	return "because"
}

// phase returns the name of a state's phase in its colour.
func phase(s api.State) cell {
	c := cell{string(s.Phase), yellow}
	switch s.Phase {
	case api.Up:
		c.style = green
	case api.Waiting, api.Down:
		c.style = red
	}
	return c
}

// phases counts the peers in each phase.
func phases(peers []api.PeerStatus) string {
	n := make(map[string]uint64)
	for _, p := range peers {
		n[string(p.State.Phase)]++
	}
	var list []string
	for _, word := range slices.Sorted(maps.Keys(n)) {
		list = append(list, fmt.Sprintf("%d %s", n[word], word))
	}
	return strings.Join(list, ", ")
}

// dropped lists the dropped packets of a peer, in both directions.
func dropped(p api.PeerStatus) string {
	var list []string
	for _, dir := range []struct {
		name string
		api.Traffic
	}{{"out", p.Out}, {"in", p.In}} {
		if len(dir.Drops) > 0 {
			list = append(list, dir.name+": "+counts(dir.Drops))
		}
	}
	return plain(strings.Join(list, "; "))
}

// counts lists each word with its number.
func counts(n map[string]uint64) string {
	var list []string
	for _, word := range slices.Sorted(maps.Keys(n)) {
		list = append(list, fmt.Sprintf("%s %d", word, n[word]))
	}
	return strings.Join(list, ", ")
}

// inside names a namespace, unless it is our own.
func inside(namespace string) string {
	if namespace == "" {
		return ""
	}
	return ", in network namespace " + namespace
}

// known describes the source of a path MTU.
func known(by string) string {
	switch by {
	case "icmp":
		return "reported by a router"
	case "probe":
		return "found by probes"
	}
	return "of the first hop"
}

// way describes how packets leave.
func way(s *api.State) string {
	names := map[string]string{"xdp": "AF_XDP", "kernel": "the kernel"}
	is, wanted := cmp.Or(names[s.IO], "a socket"), names[s.IOWanted]
	switch {
	case s.IOWhy == "":
		return is
	case s.IO == s.IOWanted:
		return is + ", but not all packets: " + s.IOWhy
	}
	return is + ", not " + cmp.Or(wanted, "AF_XDP") + ": " + s.IOWhy
}
