// Package kernelpath lets the programs of package transport/kernel carry the plain packets of
// peers, and decides of which peers.
//
// A Peer is carried in the kernel while nothing needs its packets in this process: no capture
// runs, no policy of this host would apply to its outer packets, its headers are the same for
// all packets, and all its packets use one path. Whatever changes that calls Refresh,
// Set or SetUp, which return when the programs follow. Packets that the programs do not carry
// are carried by the process as before, so to leave a peer's packets to the process is always
// right, and is what happens in doubt.
package kernelpath

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/netcfg"
	"sixfour/transport/kernel"
)

// Set is the tunnels whose packets may be carried in the kernel. Any goroutine may call its
// methods, and those of its tunnels and peers, unless they say otherwise. A Set takes locks of
// datapath.Path and of what reports on it, and its callers hold none of these.
type Set struct {
	log *zap.Logger

	wake chan struct{} // a peer is carried

	mu       sync.Mutex // guards the fields below, and all of the tunnels and peers
	programs *kernel.Programs
	fault    string // why there are no programs
	tried    bool   // to load the programs
	policies policies
	last     kernel.Peer
	free     []kernel.Peer
	devices  map[int]*device
	tunnels  map[*Tunnel]bool
}

// device is a device at which outer packets arrive.
type device struct {
	*kernel.Attachment        // nil: fault says why
	fault              string // why the program cannot be attached
}

// New returns a Set without tunnels.
func New(log *zap.Logger) *Set {
	return &Set{log: log, wake: make(chan struct{}, 1), devices: make(map[int]*device), tunnels: make(map[*Tunnel]bool)}
}

// policies are this host's IPsec policies, or the error why they are not known.
type policies struct {
	netcfg.Policies
	err error
}

// SetPolicies sets this host's IPsec policies, or the error why they are not known. The packets
// to which one applies are left to the process. Set of the peers must follow.
func (s *Set) SetPolicies(p netcfg.Policies, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies = policies{p, err}
}

// bypasses returns why the packets of a wire must not go past the kernel's IP layer, or "". s.mu
// must be held.
func (t *Tunnel) bypasses(w *datapath.Wire) string {
	if err := t.set.policies.err; err != nil {
		return err.Error()
	}
	l := w.Outer()
	return t.set.policies.Conflict(netcfg.Outer{Local: l.Local, Remote: l.Remote, Protocol: l.Kind.Protocol(), Mark: t.setup.Mark, Device: w.Hop.Device})
}

// load loads the programs, unless that was tried before. After an error the packets of all peers
// are left to the process, and their states say why. s.mu must be held.
func (s *Set) load() {
	if s.tried {
		return
	}
	s.tried = true
	var err error
	if s.programs, err = kernel.Load(); err != nil {
		s.fault = err.Error()
	}
}

// Close leaves all packets to the process, and removes the programs.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for t := range s.tunnels {
		errs = append(errs, t.shut())
	}
	for index, d := range s.devices {
		errs = append(errs, d.close())
		delete(s.devices, index)
	}
	if s.programs != nil {
		errs = append(errs, s.programs.Close())
		s.programs = nil
	}
	s.fault = "the daemon is stopping"
	if err := errors.Join(errs...); err != nil {
		s.log.Warn("cannot remove the BPF programs", zap.Error(err))
	}
}

func (d *device) close() error {
	if d.Attachment == nil {
		return nil
	}
	return d.Attachment.Close()
}

// Refresh decides again for all peers.
func (s *Set) Refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.tunnels {
		for p := range t.peers {
			p.decide()
		}
	}
}

// Sweep forgets the devices through which no peer is carried, also those to which the program
// could not be attached, so that the next Refresh of a peer tries again.
func (s *Set) Sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.devices) == 0 {
		return
	}
	used := make(map[int]bool)
	for t := range s.tunnels {
		for p := range t.peers {
			if p.carried != nil {
				used[p.carried.Hop.Device] = true
			}
		}
	}
	for index, d := range s.devices {
		if used[index] {
			continue
		}
		if err := d.close(); err != nil {
			s.log.Warn("cannot detach the BPF program from a device", zap.Int("device", index), zap.Error(err))
		}
		delete(s.devices, index)
	}
}

// attach attaches the program that receives to a device, or returns why that is impossible. s.mu
// must be held.
func (s *Set) attach(index int) string {
	d := s.devices[index]
	if d == nil {
		d = new(device)
		s.devices[index] = d
		var err error
		if d.Attachment, err = s.programs.AttachDevice(index); err != nil {
			d.fault = err.Error()
		}
	}
	return d.fault
}

const (
	// pollEvery is how often counters are read while they change, and pollIdle how often, at the
	// least, while they do not.
	pollEvery = time.Second
	pollIdle  = 4 * time.Second
	// pollRest limits how much of the time it takes: the pause is pollRest times as long.
	pollRest = 20
	// AtOnce is the number of peers that change, or whose counters are read, while other
	// goroutines wait.
	AtOnce = 256
)

// Run adds the packets that the programs have carried to the counters of the paths, again and
// again, until ctx ends. It sleeps while no packets are carried in the kernel.
func (s *Set) Run(ctx context.Context) {
	timer := time.NewTimer(pollEvery)
	defer timer.Stop()
	for pause := pollEvery; ; {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		begun := time.Now()
		peers, changed := s.collect()
		if pause = min(2*pause, pollIdle); changed {
			pause = pollEvery
		}
		timer.Stop()
		if peers > 0 {
			timer.Reset(max(pause, pollRest*time.Since(begun)))
		}
	}
}

// Collect adds the packets that the programs have carried to the counters of the paths.
func (s *Set) Collect() { s.collect() }

// collect is Collect. It returns the number of peers, and whether there were packets.
func (s *Set) collect() (peers int, changed bool) {
	for _, part := range s.list() {
		peers += len(part)
		s.mu.Lock()
		for _, p := range part {
			if p.collect() {
				changed = true
			}
		}
		s.mu.Unlock()
	}
	return peers, changed
}

// list returns the peers whose counters may have changed, in parts.
func (s *Set) list() (parts [][]*Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Peer
	for t := range s.tunnels {
		for p := range t.peers {
			if p.carried != nil || !p.rest.IsZero() {
				all = append(all, p)
			}
		}
	}
	for len(all) > AtOnce {
		parts, all = append(parts, all[:AtOnce]), all[AtOnce:]
	}
	return append(parts, all)
}

// newPeer returns a number that no peer has. s.mu must be held.
func (s *Set) newPeer() kernel.Peer {
	if n := len(s.free); n > 0 {
		id := s.free[n-1]
		s.free = s.free[:n-1]
		return id
	}
	s.last++
	return s.last
}

// Tunnel is a tunnel whose packets may be carried in the kernel.
type Tunnel struct {
	set      *Set
	log      *zap.Logger
	table    *kernel.Tunnel     // nil: there is no interface, or fault says why not
	attached *kernel.Attachment // to the interface
	fault    string
	setup    Setup
	captured func() bool // whether a capture runs
	peers    map[*Peer]bool
}

// Setup is what the peers of a tunnel have in common.
type Setup struct {
	Wanted    bool           // the packets are to be carried in the kernel if possible
	TwoLayers bool           // packets get two layers of headers, so the routes need RouteProgram
	Mark      uint32         // firewall mark of the outer packets
	Interface int            // index; 0: there is none
	Why       string         // why no packets can be carried in the kernel; "": they can
	Own       []netip.Addr   // addresses of this host in the namespace of the interface, and our ends of the layers
	Subnets   []netip.Prefix // of its other interfaces
}

// Add adds a tunnel, which has no interface yet. Captured returns whether a capture of its
// packets runs; Refresh must be called when that changes. If the configuration wants the kernel to
// carry packets, Add loads the programs, which a process can do only until it gives up the right.
func (s *Set) Add(cfg *config.Tunnel, log *zap.Logger, captured func() bool) *Tunnel {
	s.mu.Lock()
	defer s.mu.Unlock()
	if Wanted(cfg) {
		s.load()
	}
	t := &Tunnel{set: s, log: log, captured: captured, setup: Setup{Wanted: Wanted(cfg)}, peers: make(map[*Peer]bool)}
	s.tunnels[t] = true
	return t
}

// Wanted returns the number of tunnels whose packets are to be carried in the kernel.
func (s *Set) Wanted() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.tunnels {
		if t.setup.Wanted {
			n++
		}
	}
	return n
}

// Remove removes a tunnel with its peers. A nil Tunnel does nothing.
func (t *Tunnel) Remove() {
	if t == nil {
		return
	}
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	t.warn(t.shut())
	for p := range t.peers {
		p.release()
	}
	delete(t.set.tunnels, t)
}

// warn logs an error of the programs' tables.
func (t *Tunnel) warn(err error) {
	if err != nil {
		t.log.Warn("the tables of the BPF programs", zap.Error(err))
	}
}

// shut leaves all packets to the process and detaches the program from the interface. The lock
// of the set must be held.
func (t *Tunnel) shut() error {
	var errs []error
	for p := range t.peers {
		p.leave("")
		p.prefixes = nil
	}
	if t.table != nil {
		errs = append(errs, t.table.Close(), t.attached.Close())
	}
	t.table, t.attached, t.fault, t.setup.Interface = nil, nil, "", 0
	return errors.Join(errs...)
}

// SetUp sets what the peers of the tunnel have in common. Set of all peers must follow if their
// packets are to be carried in the kernel.
func (t *Tunnel) SetUp(next Setup) {
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	if next.Interface != t.setup.Interface || !next.Wanted || next.Why != "" {
		t.warn(t.shut())
	}
	same := slices.Equal(next.Own, t.setup.Own) && slices.Equal(next.Subnets, t.setup.Subnets)
	t.setup = next
	if !next.Wanted {
		return
	}
	t.set.load()
	if t.set.programs == nil || next.Interface == 0 || next.Why != "" {
		return
	}
	if t.table == nil {
		same = false
		attached, err := t.set.programs.AttachTunnel(next.Interface)
		if err != nil {
			t.fault = err.Error()
			return
		}
		t.table, t.attached, t.fault = t.set.programs.NewTunnel(next.Interface), attached, ""
	}
	if same {
		return
	}
	if err := t.table.SetHost(next.Own, next.Subnets); err != nil {
		t.giveUp(err)
	}
}

// RouteProgram returns the descriptor of the program for the routes into the tunnel; 0: there is
// none.
func (t *Tunnel) RouteProgram() int {
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	if !t.setup.Wanted || !t.setup.TwoLayers || t.table == nil {
		return 0
	}
	return t.set.programs.RouteProgram().FD()
}

// giveUp leaves all packets of the tunnel to the process after an error of the tables, which
// may be incomplete. The lock of the set must be held.
func (t *Tunnel) giveUp(err error) {
	t.warn(errors.Join(err, t.shut()))
	t.fault = err.Error()
}

// headersOf returns the headers of a wire's packets of each IP version, and why those of one
// are not carried though the mode does: "" if all are.
func headersOf(w *datapath.Wire) (h4, h6 *encap.Headers, why string) {
	for version, to := range map[int]**encap.Headers{4: &h4, 6: &h6} {
		h, err := w.Stack.Headers(version)
		switch {
		case err == nil:
			*to = &h
		case !errors.Is(err, encap.ErrNotCarried):
			why = err.Error()
		}
	}
	return h4, h6, why
}
