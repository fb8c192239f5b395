package kernel

import (
	"errors"
	"net/netip"
	"slices"

	"sixfour/encap"
)

// Tunnel is what the tables say about one tunnel. It makes the changes in an order in which
// no packet is carried to, or from, a peer that is not the right one: at worst, the programs
// leave packets to the process for a moment. Its methods must not be called concurrently.
type Tunnel struct {
	programs *Programs
	index    int
	prefixes map[netip.Prefix]holder
	behind   map[Peer][]netip.Prefix
	ways     map[Peer]Way
	own      []netip.Addr
	subnets  []netip.Prefix
}

// holder says who has a prefix. The order of the fields is that of their rank.
type holder struct {
	own    bool // an address of this host
	peer   Peer
	peered bool // peer is set
	subnet bool // of another interface of this host
}

// Way is how the programs carry packets to and from a peer.
type Way struct {
	Layers []encap.Layer // of packets from the peer
	Hop    Hop           // of packets to the peer

	// Headers of packets to the peer; nil: the programs do not carry packets of the version.
	Headers4, Headers6 *encap.Headers
}

// NewTunnel returns the tunnel whose interface has an index. It carries nothing yet.
func (p *Programs) NewTunnel(index int) *Tunnel {
	return &Tunnel{
		programs: p, index: index,
		prefixes: make(map[netip.Prefix]holder), behind: make(map[Peer][]netip.Prefix), ways: make(map[Peer]Way),
	}
}

// SetHost sets the addresses of this host, and the subnets of its other interfaces. The own
// addresses are nobody's; a subnet is nobody's unless a peer has the same prefix, and a longer
// prefix of a peer counts, as in package source.
func (t *Tunnel) SetHost(own []netip.Addr, subnets []netip.Prefix) error {
	var errs []error
	change := func(prefix netip.Prefix, f func(*holder)) { errs = append(errs, t.change(prefix, f)) }
	for _, a := range own {
		change(netip.PrefixFrom(a, a.BitLen()), func(h *holder) { h.own = true })
	}
	for _, s := range subnets {
		change(s, func(h *holder) { h.subnet = true })
	}
	for _, a := range t.own {
		if !slices.Contains(own, a) {
			change(netip.PrefixFrom(a, a.BitLen()), func(h *holder) { h.own = false })
		}
	}
	for _, s := range t.subnets {
		if !slices.Contains(subnets, s) {
			change(s, func(h *holder) { h.subnet = false })
		}
	}
	t.own, t.subnets = slices.Clone(own), slices.Clone(subnets)
	return errors.Join(errs...)
}

// SetBehind sets the prefixes behind a peer. All peers of the tunnel must have theirs, also
// those whose packets the programs do not carry: otherwise packets for them would go to the
// peer with the next shorter prefix.
func (t *Tunnel) SetBehind(peer Peer, prefixes []netip.Prefix) error {
	var errs []error
	stays := make(map[netip.Prefix]bool, len(prefixes))
	for _, p := range prefixes {
		stays[p] = true
		errs = append(errs, t.change(p, func(h *holder) { h.peer, h.peered = peer, true }))
	}
	for _, p := range t.behind[peer] {
		if !stays[p] {
			errs = append(errs, t.change(p, func(h *holder) {
				if h.peer == peer { // another peer may have it by now
					h.peer, h.peered = 0, false
				}
			}))
		}
	}
	if len(prefixes) == 0 {
		delete(t.behind, peer)
	} else {
		t.behind[peer] = slices.Clone(prefixes)
	}
	return errors.Join(errs...)
}

// change changes who has a prefix.
func (t *Tunnel) change(prefix netip.Prefix, f func(*holder)) error {
	prefix = prefix.Masked()
	before, known := t.prefixes[prefix]
	after := before
	f(&after)
	if known && before == after {
		return nil
	}
	var err error
	switch {
	case after.own || after.subnet && !after.peered:
		err = t.programs.Behind(t.index, prefix, Nobody)
	case after.peered:
		err = t.programs.Behind(t.index, prefix, after.peer)
	default:
		if err = t.programs.NotBehind(t.index, prefix); err == nil {
			delete(t.prefixes, prefix)
			return nil
		}
	}
	if err == nil {
		t.prefixes[prefix] = after
	}
	return err
}

// Carry makes the programs carry packets to and from a peer in a way, instead of that of an
// earlier call. If it fails, they carry none.
func (t *Tunnel) Carry(peer Peer, w Way) error {
	old, carried := t.ways[peer]
	var errs []error
	if !carried {
		errs = append(errs, t.programs.Count(peer))
	} else if !slices.Equal(old.Layers, w.Layers) {
		errs = append(errs, t.programs.StopReceiving(old.Layers))
	}
	for version, h := range map[int]*encap.Headers{4: w.Headers4, 6: w.Headers6} {
		if h == nil {
			errs = append(errs, t.programs.StopSending(peer, version))
		} else {
			errs = append(errs, t.programs.Send(peer, version, w.Hop, *h))
		}
	}
	errs = append(errs, t.programs.Receive(peer, t.index, w.Layers))
	t.ways[peer] = w
	if err := errors.Join(errs...); err != nil {
		_, failed := t.Leave(peer)
		return errors.Join(err, failed)
	}
	return nil
}

// Leave makes the programs leave all packets to and from a peer to the process, and returns
// how many they have carried since Carry. Its prefixes stay.
func (t *Tunnel) Leave(peer Peer) (c Counts, err error) {
	w, carried := t.ways[peer]
	if !carried {
		return c, nil
	}
	delete(t.ways, peer)
	err = errors.Join(t.programs.StopSending(peer, 4), t.programs.StopSending(peer, 6), t.programs.StopReceiving(w.Layers))
	c, failed := t.programs.Counts(peer)
	return c, errors.Join(err, failed, t.programs.StopCounting(peer))
}

// Close removes all that the tables say about the tunnel.
func (t *Tunnel) Close() error {
	var errs []error
	for peer := range t.ways {
		_, err := t.Leave(peer)
		errs = append(errs, err)
	}
	for prefix := range t.prefixes {
		errs = append(errs, t.programs.NotBehind(t.index, prefix))
	}
	t.prefixes, t.behind = make(map[netip.Prefix]holder), make(map[Peer][]netip.Prefix)
	t.own, t.subnets = nil, nil
	return errors.Join(errs...)
}
