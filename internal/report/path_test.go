package report

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/events"
)

// newTestPath returns a path of a tunnel, the only one of a peer, and a function that returns
// the events since its last call.
func newTestPath(t *testing.T, peer string, index, paths int) (*Path, func() []api.Event) {
	tun := NewTunnel("six0", false, zap.NewNop())
	tun.Events = new(events.Log)
	p := NewPath(tun, peer, &datapath.Path{Record: encap.NewRecord()})
	p.Place(index, paths)
	follow := tun.Events.Follow(t.Context())
	return p, func() (list []api.Event) {
		tun.Events.Add(api.Event{Kind: "end"})
		for e := range follow {
			if e.Kind == "end" {
				return list
			}
			list = append(list, e)
		}
		return list
	}
}

// A path that could send packets and now waits has an outage, until it is up again. The same
// reason is reported once.
func TestOutage(t *testing.T) {
	p, added := newTestPath(t, "", 0, 1)
	used := api.State{Local: "192.0.2.1", Remote: "192.0.2.2", PathMTU: 1500, PathMTUBy: "route"}
	p.Waits("a route", false)
	p.Waits("a route", false)
	if list := added(); len(list) != 1 || list[0].Text != "waiting for a route" || list[0].Tunnel != "six0" {
		t.Errorf("events %v", list)
	}
	if s := p.Status(api.Probes{}, 1480); s.LastDown != nil || s.State.Phase != api.Waiting || s.State.TunnelMTU != 0 {
		t.Errorf("at the start: %+v", s)
	}
	p.Uses(used, false, 1480)
	if s := p.Status(api.Probes{}, 1480); s.State.Phase != api.Up || s.State.TunnelMTU != 1480 || s.LastDown != nil {
		t.Errorf("with a wire: %+v", s)
	}
	p.Waits("an address", false)
	if s := p.Status(api.Probes{}, 1480); s.LastDown == nil || s.LastDown.Why != "it waits for an address" || !s.LastDown.Until.IsZero() {
		t.Errorf("without a wire again: %+v", s.LastDown)
	}
	p.Uses(used, false, 1480)
	if s := p.Status(api.Probes{}, 1480); s.LastDown == nil || s.LastDown.Until.IsZero() {
		t.Errorf("the outage did not end: %+v", s.LastDown)
	}
	if phase, detail := p.Phase(); phase != api.Up || detail != "" {
		t.Errorf("%s: %s", phase, detail)
	}
}

// A checked path with other ends must be found to be up again; another path MTU changes
// nothing.
func TestUses(t *testing.T) {
	p, added := newTestPath(t, "a", 1, 2)
	one := api.State{Local: "192.0.2.1", Remote: "192.0.2.2", PathMTU: 1500, PathMTUBy: "route"}
	p.Uses(one, true, 1480)
	p.mu.Lock()
	p.state.Phase = api.Up
	p.mu.Unlock()
	added()
	narrow := one
	narrow.PathMTU = 1400
	p.Uses(narrow, true, 1480)
	list := added()
	if len(list) != 1 || list[0].Kind != api.EventPathMTU || list[0].Text != "path 2: path MTU 1400 (route), was 1500" || list[0].Peer != "a" {
		t.Errorf("another path MTU: %v", list)
	}
	if phase, _ := p.Phase(); phase != api.Up {
		t.Errorf("another path MTU: %s", phase)
	}
	other := narrow
	other.Remote = "192.0.2.3"
	p.Uses(other, true, 1480)
	list = added()
	if len(list) != 2 || list[0].Kind != api.EventAddress || list[1].Kind != api.EventState {
		t.Errorf("another address: %v", list)
	}
	if phase, _ := p.Phase(); phase != api.Probing {
		t.Errorf("another address: %s", phase)
	}
}

// The same error is one event, and a lack of buffers is none.
func TestErrors(t *testing.T) {
	p, added := newTestPath(t, "", 0, 1)
	before := time.Now().Add(-time.Second)
	p.Note("an error")
	p.Note("an error")
	p.Remember("a change")
	if list := added(); len(list) != 1 || list[0].Kind != api.EventError || p.LastError(before) != "a change" {
		t.Errorf("%v, last %q", list, p.LastError(before))
	}
	p.SendFailed(unix.ENOBUFS)
	p.SendFailed(errors.Join(unix.EPERM))
	if list := added(); len(list) != 1 || list[0].Text != "packets cannot be sent: operation not permitted" {
		t.Errorf("%v", list)
	}
	if p.LastError(time.Now()) != "" {
		t.Error("an old error is the last one")
	}
}

// Another local address of several paths of a tunnel is one repair.
func TestFollows(t *testing.T) {
	p, added := newTestPath(t, "", 0, 1)
	q := NewPath(p.t, "", &datapath.Path{})
	at := func(local string, device int) *datapath.Wire {
		return &datapath.Wire{Layers: []encap.Layer{{Kind: encap.SixInFour, Local: netip.MustParseAddr(local)}}, Hop: datapath.Hop{Device: device}}
	}
	for _, w := range []*datapath.Wire{at("192.0.2.1", 1), at("192.0.2.2", 1), at("192.0.2.2", 2)} {
		p.Follows(w)
		q.Follows(w)
	}
	if list := added(); len(list) != 2 || p.t.Repairs()["address"] != 1 || p.t.Repairs()["route"] != 1 {
		t.Errorf("%v, %v", list, p.t.Repairs())
	}
}

// Of a hub's peers that wait or fail at the same time, only some are logged above debug level.
func TestLevels(t *testing.T) {
	hub, single := NewTunnel("hub0", true, zap.NewNop()), NewTunnel("six0", false, zap.NewNop())
	fell, waited := 0, 0
	for range 100 {
		if hub.FallLevel(zap.WarnLevel) == zap.WarnLevel {
			fell++
		}
		if hub.waitingLevel() == zap.WarnLevel {
			waited++
		}
		if single.FallLevel(zap.WarnLevel) != zap.WarnLevel {
			t.Fatal("a failure of a single peer is not logged")
		}
	}
	if fell != lifeLogs || waited != waitingLogs {
		t.Errorf("%d failures and %d waiting peers are logged", fell, waited)
	}
	if hub.LimitWaiting(); hub.waitingLevel() != zap.WarnLevel {
		t.Error("a later evaluation has no log lines")
	}
}
