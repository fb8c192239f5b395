package kernelpath

import (
	"net/netip"
	"slices"
	"time"

	"sixfour/encap"
	"sixfour/internal/datapath"
	"sixfour/transport/kernel"
)

// Peer is a peer whose packets may be carried in the kernel.
type Peer struct {
	t        *Tunnel
	of       *datapath.Peer
	id       kernel.Peer
	settings Settings
	prefixes []netip.Prefix // those in the tables

	carried *datapath.Wire // that of the packets in the kernel; nil: they are left to the process
	counted kernel.Counts  // of the packets on carried, those that were added to the counters of its path
	rest    time.Time      // until then, packets are left to the process
	said    verdict        // to Report
}

// verdict is where packets are carried, and why not in the kernel.
type verdict struct {
	path     *datapath.Path
	inKernel bool
	why      string
}

// Settings are what the configuration says about a peer, and the state that only the control
// loop knows.
type Settings struct {
	Prefixes []netip.Prefix // behind the peer
	Why      string         // why its packets cannot be carried in the kernel; "": they can
	// Outer are the outermost layers, as in the wires of the peer's paths, of the packets that
	// this process receives as those of the peer.
	Outer []encap.Layer
	// Report is called when it has changed whether the packets on a path of the peer are carried
	// in the kernel, or why not. It must not call methods of this package.
	Report func(p *datapath.Path, inKernel bool, why string, must bool)
	Must   bool // the configuration asks for nothing but the kernel; for Report
}

// equal reports whether two settings are the same, Report apart.
func (s *Settings) equal(o *Settings) bool {
	return s.Why == o.Why && s.Must == o.Must && slices.Equal(s.Outer, o.Outer) && slices.Equal(s.Prefixes, o.Prefixes)
}

// WhyCaptured is why the packets of a tunnel are not carried in the kernel for the moment.
const WhyCaptured = "a capture is running"

// Add adds a peer. It needs Set before its packets are carried.
func (t *Tunnel) Add(of *datapath.Peer) *Peer {
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	p := &Peer{t: t, of: of, id: t.set.newPeer()}
	t.peers[p] = true
	return p
}

// Remove leaves the packets of a peer to the process for good. A nil Peer does nothing.
func (p *Peer) Remove() {
	if p == nil {
		return
	}
	p.t.set.mu.Lock()
	defer p.t.set.mu.Unlock()
	if !p.t.peers[p] {
		return
	}
	p.leave("")
	if p.t.table != nil {
		p.t.warn(p.t.table.SetBehind(p.id, nil))
	}
	delete(p.t.peers, p)
	p.release()
}

// release makes the number of the peer free. The lock of the set must be held.
func (p *Peer) release() { p.t.set.free = append(p.t.set.free, p.id) }

// Set sets the settings of peers, as many as there are in both lists. The prefixes that any of
// them gets are there before those that others give up are removed, so that no packet goes to
// the peer with the next shorter prefix.
func (t *Tunnel) Set(peers []*Peer, settings []Settings) {
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	var moved []*Peer
	for i, p := range peers {
		s := settings[i]
		if p.settings.Report == nil || !p.settings.equal(&s) {
			p.settings = s
		}
		if t.table == nil || slices.Equal(p.prefixes, s.Prefixes) {
			continue
		}
		if err := t.table.SetBehind(p.id, slices.Concat(p.prefixes, s.Prefixes)); err != nil {
			t.giveUp(err)
			continue
		}
		moved = append(moved, p)
	}
	for _, p := range moved {
		if t.table == nil {
			break
		}
		p.prefixes = p.settings.Prefixes
		if err := t.table.SetBehind(p.id, p.prefixes); err != nil {
			t.giveUp(err)
		}
	}
	for _, p := range peers {
		p.decide()
	}
}

// Refresh decides again whether the packets of the peer are carried in the kernel: its wires, or
// which of them its packets use, have changed. A nil Peer does nothing.
func (p *Peer) Refresh() {
	if p == nil {
		return
	}
	p.t.set.mu.Lock()
	defer p.t.set.mu.Unlock()
	p.decide()
}

// Refused reports whether there is a reason why the packets of the peer are not carried in the
// kernel, other than a capture. A nil Peer has none.
func (p *Peer) Refused() bool {
	if p == nil {
		return false
	}
	p.t.set.mu.Lock()
	defer p.t.set.mu.Unlock()
	return !p.said.inKernel && p.said.why != "" && p.said.why != WhyCaptured
}

// errorRest is how long the packets of a peer are left to the process after an ICMP error,
// which the senders of the next packets are told.
const errorRest = 3 * time.Second

// Rest leaves the packets of the peer to the process for a moment, because their senders must
// be told of an ICMP error. A nil Peer does nothing.
func (p *Peer) Rest() {
	if p == nil {
		return
	}
	p.t.set.mu.Lock()
	defer p.t.set.mu.Unlock()
	p.rest = time.Now().Add(errorRest)
	p.decide()
}

// decide makes the programs carry the packets of the peer, or not. The lock of the set must be
// held.
func (p *Peer) decide() {
	if !p.t.peers[p] {
		return
	}
	if !p.t.setup.Wanted {
		p.leave("")
		return
	}
	wire, divided := p.of.Selected()
	why := p.refuses(wire, divided)
	if why == "" && wire != nil && p.waits(wire) {
		p.leave("")
		return
	}
	if why != "" || wire == nil {
		p.leave(why)
		return
	}
	if p.carried != wire {
		why = p.carry(wire)
	} else {
		why = p.said.why
	}
	p.report(verdict{wire.Path, p.carried == wire, why})
}

// refuses returns why the packets of the peer cannot be carried in the kernel, or "".
func (p *Peer) refuses(wire *datapath.Wire, divided bool) string {
	t := p.t
	switch {
	case t.setup.Why != "":
		return t.setup.Why
	case p.settings.Why != "":
		return p.settings.Why
	case t.set.programs == nil:
		return t.set.fault
	case t.fault != "":
		return t.fault
	case t.captured():
		return WhyCaptured
	case divided:
		return "the packets are divided among several paths"
	case wire == nil:
		return ""
	case wire.Hop.Port != nil:
		return "they leave through AF_XDP"
	}
	if why := t.bypasses(wire); why != "" {
		return why
	}
	return t.set.attach(wire.Hop.Device)
}

// waits reports whether the packets of a wire are left to the process for the moment.
func (p *Peer) waits(wire *datapath.Wire) bool {
	if !p.rest.IsZero() && time.Now().Before(p.rest) {
		return true
	}
	p.rest = time.Time{}
	return p.t.table == nil || !wire.Path.Listening.Load() || !slices.Contains(p.settings.Outer, *wire.Outer())
}

// carry makes the programs carry the packets of a wire. It returns why they carry only some of
// them, or none.
func (p *Peer) carry(wire *datapath.Wire) (why string) {
	h4, h6, why := headersOf(wire)
	if h4 == nil && h6 == nil {
		p.leave(why)
		return why
	}
	if p.carried != nil && p.carried.Path != wire.Path {
		p.leave("")
	}
	wire.Path.Record.SetSegmented()
	err := p.t.table.Carry(p.id, kernel.Way{Layers: wire.Layers, Hop: kernel.Hop{Device: wire.Hop.Device, Mark: p.t.setup.Mark}, Headers4: h4, Headers6: h6})
	if err != nil {
		p.t.warn(err)
		p.carried, p.counted = nil, kernel.Counts{}
		return err.Error()
	}
	p.carried = wire
	select {
	case p.t.set.wake <- struct{}{}:
	default:
	}
	return why
}

// leave leaves the packets of the peer to the process.
func (p *Peer) leave(why string) {
	if p.carried != nil && p.t.table != nil {
		if counts, err := p.t.table.Leave(p.id); err != nil {
			p.t.warn(err)
		} else {
			p.count(counts)
		}
	}
	path := p.of.First()
	if p.carried != nil {
		path = p.carried.Path
	}
	p.carried, p.counted = nil, kernel.Counts{}
	p.report(verdict{path, false, why})
}

// report says where the packets of the peer are carried, if that is new.
func (p *Peer) report(now verdict) {
	if before := p.said; now != before && p.settings.Report != nil {
		if before.path != now.path && before.path != nil && before.inKernel {
			p.settings.Report(before.path, false, "", p.settings.Must)
		}
		p.said = now
		p.settings.Report(now.path, now.inKernel, now.why, p.settings.Must)
	}
}

// collect adds the packets that the programs have carried to the counters of the path, and
// reports whether there were any.
func (p *Peer) collect() bool {
	if p.carried == nil || p.t.table == nil {
		if !p.rest.IsZero() {
			p.decide()
		}
		return false
	}
	counts, err := p.t.set.programs.Counts(p.id)
	if err != nil {
		p.t.warn(err)
		return false
	}
	before := p.counted
	p.count(counts)
	return counts != before
}

// count adds those of the packets to the counters of the path that were not added yet. Those
// that arrived come first: others wait for an answer to what was sent.
func (p *Peer) count(now kernel.Counts) {
	path, was := p.carried.Path, p.counted
	p.counted = now
	if n := now.Received.Packets - was.Received.Packets; n > 0 {
		path.Received(int(n), int(now.Received.Bytes-was.Received.Bytes))
	}
	path.Record.CountOddECN(now.OddECN - was.OddECN)
	if n := now.Sent.Packets - was.Sent.Packets; n > 0 {
		path.Sent(int(n), int(now.Sent.Bytes-was.Sent.Bytes))
	}
	if n := now.Large - was.Large; n > 0 {
		p.carried.SentLarge(n)
	}
}
