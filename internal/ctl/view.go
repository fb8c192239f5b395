package ctl

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sixfour/internal/api"
)

// view is the state of the live view.
type view struct {
	tunnel   string // the only tunnel shown; "": all
	now      time.Time
	status   api.Status
	statusAt time.Time
	before   api.Status // the previous status, for rates
	beforeAt time.Time  // zero: none
	gone     error      // the daemon does not answer
	events   []api.Event
}

// frame returns the lines for a terminal of the given size: the tunnels, and below them the
// latest events.
func (v *view) frame(columns, rows int) [][]cell {
	lines := [][]cell{v.title()}
	pane := min(len(v.events), max(rows/3, 1))
	left := rows - len(lines)
	if pane > 0 {
		left -= pane + 2
	}
	lines = append(lines, v.table(left).lines(0)...)
	if len(lines) > rows-1 {
		lines = lines[:max(rows-1, 1)]
	}
	if pane == 0 || left < 2 {
		return lines
	}
	lines = append(lines, nil, []cell{{"EVENTS", faint}})
	for _, ev := range v.events[len(v.events)-pane:] {
		lines = append(lines, []cell{{eventLine(ev, time.TimeOnly), none}})
	}
	return lines
}

func (v *view) title() []cell {
	if v.gone != nil {
		return []cell{{plain(v.gone.Error()) + " (waiting for the daemon; q quits)", red}}
	}
	peers := 0
	for _, t := range v.status.Tunnels {
		peers += max(len(t.Peers), 1)
	}
	return []cell{{"sixfourd " + plain(v.status.Version), bold}, {fmt.Sprintf(" for %s: %d tunnels, %d peers, at %s; q quits",
		formatDuration(v.now.Sub(v.status.Started)), len(v.status.Tunnels), peers, v.now.Format(time.TimeOnly)), none}}
}

// table shows every tunnel, and as many of its peers as fit, those with problems first.
func (v *view) table(rows int) *table {
	t := &table{
		heading: []string{"TUNNEL", "STATE", "FOR", "RTT", "LOSS", "PATH MTU", "OUT", "RATE", "IN", "RATE", "DROPPED"},
		numbers: []bool{false, false, true, true, true, true, true, true, true, true, false},
	}
	rates := v.rates()
	left := rows - 1 - len(v.status.Tunnels)
	for _, tun := range v.status.Tunnels {
		if len(t.rows) >= rows-1 {
			break // rows that are not visible need no work
		}
		t.rows = append(t.rows, v.row(tun.Name, tun.Name, tun.PeerStatus, rates))
		if d := tun.State.Detail; d != "" && left > 0 {
			t.rows[len(t.rows)-1].under = why(tun.State) + " " + plain(d)
			left--
		}
		v.paths(t, &left, "  ", tun.Name, tun.Paths, rates)
		peers := slices.Clone(tun.Peers)
		slices.SortStableFunc(peers, func(a, b api.PeerStatus) int { return severity(b) - severity(a) })
		for i, p := range peers {
			if left == 1 && i < len(peers)-1 || left < 1 {
				if left == 1 {
					t.rows = append(t.rows, row{cells: []cell{{fmt.Sprintf("  and %d more", len(peers)-i), faint}}})
					left--
				}
				break
			}
			key := tun.Name + "/" + p.Peer
			t.rows = append(t.rows, v.row("  "+p.Peer, key, p, rates))
			left--
			v.paths(t, &left, "    ", key, p.Paths, rates)
		}
	}
	return t
}

// paths adds each of several paths to a peer, if they all fit into the rows that are left.
func (v *view) paths(t *table, left *int, indent, peer string, all []api.PathStatus, rates map[string]rate) {
	if len(all) > *left {
		return
	}
	for i, p := range all {
		name := fmt.Sprintf("%spath %d", indent, i+1)
		if p.State.Encap != "" {
			name += " " + p.State.Encap
		}
		if p.Used {
			name += ", used"
		}
		t.rows = append(t.rows, v.row(name, pathKey(peer, i), api.PeerStatus{State: p.State, Liveness: p.Liveness}, rates))
	}
	*left -= len(all)
}

// pathKey returns the key of a path's rates. No tunnel or peer has such a name.
func pathKey(peer string, i int) string { return fmt.Sprintf("%s path %d", peer, i) }

// severity ranks a peer by how serious its state is.
func severity(p api.PeerStatus) int {
	switch p.State.Phase {
	case api.Up:
		return 0
	case api.Starting, api.Probing:
		return 1
	case api.Suspect:
		return 2
	}
	return 3
}

func (v *view) row(name, key string, p api.PeerStatus, rates map[string]rate) row {
	rtt, loss, mtu := quality(p)
	var out, outBits, in, inBits, drops string
	if r, ok := rates[key]; ok {
		out, outBits = scaled(r.out.packets, "p/s"), scaled(8*r.out.bytes, "bit/s")
		in, inBits = scaled(r.in.packets, "p/s"), scaled(8*r.in.bytes, "bit/s")
		drops = r.drops
	}
	return row{cells: []cell{{plain(name), none}, phase(p.State), {formatDuration(v.now.Sub(p.State.Since)), none}, {rtt, none}, {loss, none}, {mtu, none},
		{out, none}, {outBits, none}, {in, none}, {inBits, none}, {drops, red}}}
}

// rate is traffic per second.
type rate struct {
	out, in struct{ packets, bytes float64 }
	drops   string // in both directions, by reason
}

// rates returns the rates of each tunnel, peer and path between the last two statuses, by
// TUNNEL, TUNNEL/PEER or pathKey.
func (v *view) rates() map[string]rate {
	seconds := v.statusAt.Sub(v.beforeAt).Seconds()
	if v.beforeAt.IsZero() || seconds <= 0 || !v.before.Started.Equal(v.status.Started) {
		return nil
	}
	was := make(map[string]api.PeerStatus)
	all(v.before, func(key string, p api.PeerStatus) { was[key] = p })
	rates := make(map[string]rate)
	all(v.status, func(key string, p api.PeerStatus) {
		old, ok := was[key]
		if !ok || p.Out.Packets < old.Out.Packets || p.In.Packets < old.In.Packets { // the counters were reset
			return
		}
		var r rate
		r.out.packets, r.out.bytes = per(old.Out.Packets, p.Out.Packets, seconds), per(old.Out.Bytes, p.Out.Bytes, seconds)
		r.in.packets, r.in.bytes = per(old.In.Packets, p.In.Packets, seconds), per(old.In.Bytes, p.In.Bytes, seconds)
		r.drops = strings.Join(append(drops("out", old.Out, p.Out, seconds), drops("in", old.In, p.In, seconds)...), ", ")
		rates[key] = r
	})
	return rates
}

func per(old, now uint64, seconds float64) float64 { return float64(now-min(old, now)) / seconds }

// drops lists the drop reasons whose counts have increased, with rates.
func drops(direction string, old, now api.Traffic, seconds float64) (list []string) {
	for _, reason := range slices.Sorted(maps.Keys(now.Drops)) {
		if n := per(old.Drops[reason], now.Drops[reason], seconds); n > 0 {
			list = append(list, plain(fmt.Sprintf("%s %s %s", direction, reason, scaled(n, "p/s"))))
		}
	}
	return list
}

// all calls f with each tunnel, peer and path, and its key.
func all(s api.Status, f func(key string, p api.PeerStatus)) {
	one := func(key string, p *api.PeerStatus) {
		f(key, *p)
		for i, path := range p.Paths {
			f(pathKey(key, i), api.PeerStatus{In: path.In, Out: path.Out})
		}
	}
	for _, t := range s.Tunnels {
		one(t.Name, &t.PeerStatus)
		for i := range t.Peers {
			one(t.Name+"/"+t.Peers[i].Peer, &t.Peers[i])
		}
	}
}
