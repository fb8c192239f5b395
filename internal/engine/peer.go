package engine

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"sixfour/encap"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/liveness"
	"sixfour/internal/pathmtu"
)

// peer is one remote endpoint of a tunnel. Of an automatic tunnel it stands for
// all of them.
type peer struct {
	t    *tunnel
	cfg  config.Peer // its name never changes; the rest is as that of the tunnel's
	in   counters
	out  counters
	path atomic.Pointer[path] // nil: there is no way to the peer now

	listening atomic.Bool   // packets from the peer find us
	answered  atomic.Uint64 // echo requests, by the daemon itself
	record    *encap.Record
	soft      softState
	heard     heard
	echo      *echo
	// Limits what routers say of the path MTU, true or not.
	reports *rate.Limiter
	narrow  sync.Mutex // of those who note and forget narrow destinations
	witness witness
	wanted  atomic.Uint32                 // who wants to hear of the next packet from the peer
	arrived atomic.Bool                   // there was one: the prober has to look
	large   atomic.Uint64                 // packets sent that not every path carries
	asked6  atomic.Uint64                 // large echo requests to our end that the interface answers
	watched atomic.Bool                   // the prober knows of it
	retired bool                          // and shall not any more; under the prober's mu
	doubt   atomic.Pointer[chan struct{}] // whether its name still has the address; nil: it has no name

	// Of the control loop only.
	resolved   netip.Addr // of a remote that is a name
	naming     naming
	unfollow   context.CancelFunc // the name; nil: it has none
	registered *path              // by which packets from the peer find us
	// arrives is the path by which these are decapsulated: the last that there was
	// between the ends of registered. With other ends there is another.
	arrives    *atomic.Pointer[path]
	former     *atomic.Pointer[path] // by which they also find us, until then: the name had another address
	until      time.Time
	noXDP      string  // why packets do not leave through AF_XDP though they should
	twin       *peer   // whose packets cannot be told from its own
	through    *tunnel // into which outer packets are routed
	lesson     lesson  // what was learnt of the path last
	lastWay    lastWay
	odd, wraps uint64 // of the record, when they were logged

	several  atomic.Bool           // its name has more than one address
	lifeSign atomic.Bool           // there was a packet: the keeper has to look
	doubted  atomic.Bool           // somebody said that nobody is there
	marked   atomic.Bool           // the keeper will look
	ways     twoWays               // in which its packets arrive
	pulses   []*pulse              // the keeper's
	proven   atomic.Pointer[proof] // how probes are answered; nil: none was
	asked    asked
	refused  atomic.Int64 // when it was looked at last that packets cannot be sent, in ns since epoch

	mu       sync.Mutex
	state    api.State
	liveness api.Liveness
	trouble  api.Trouble
	outage   api.Outage
	wasUp    bool // since leaveDead looked last
}

// path is how packets reach a peer. It is immutable: a change replaces it.
type path struct {
	layers  []encap.Layer // innermost first
	options encap.Options
	version int           // of the tunnel
	device  int           // of the first hop, by its index
	on      string        // that device's name
	link    encap.PathMTU // of the first hop
	mtu     encap.PathMTU // of all that is known; not larger
	by      pathmtu.Source
	hop     hop
	life    liveness.Settings // Every is 0: it is not watched whether the peer lives
	between []config.Pair     // inner addresses that the two ends may have
	stack   *encap.Stack
	clamp   clamp
	from    origin
	senders sockets // one for each queue
}

// outer is the outermost layer, whose addresses are those of the packets that
// leave the host.
func (p *path) outer() *encap.Layer { return &p.layers[len(p.layers)-1] }

// is reports whether a path has the addresses and the first hop.
func (p *path) is(layers []encap.Layer, link encap.PathMTU) bool {
	return p != nil && p.link == link && slices.Equal(p.layers, layers)
}

// same reports whether two paths have these, and packets look the same.
func (p *path) same(o *path) bool {
	return p.is(o.layers, o.link) && p.mtu == o.mtu && p.by == o.by && p.hop == o.hop && p.device == o.device && p.version == o.version && slices.Equal(p.between, o.between)
}

func newPeer(t *tunnel, cfg *config.Peer) *peer {
	p := &peer{t: t, cfg: *cfg, record: encap.NewRecord(), echo: newEcho(), reports: rate.NewLimiter(reportsPerSecond, reportsPerSecond)}
	p.state = api.State{Phase: api.Starting, Since: time.Now()}
	return p
}

// log is the tunnel's, with the peer's name if it has one.
func (p *peer) log() *zap.Logger {
	if p.cfg.Name == "" {
		return p.t.log
	}
	return p.t.log.With(zap.String("peer", p.cfg.Name))
}

// remote is what the configuration says of the peer's outer end.
func (p *peer) remote() config.Host { return p.cfg.Remotes[len(p.cfg.Remotes)-1] }

// outerVersion is the IP version of the outermost header.
func (t *tunnel) outerVersion() int { return t.cfg.Mode.Layers[len(t.cfg.Mode.Layers)-1].Over() }

// automatic reports whether the outer destinations follow from the packets.
func (t *tunnel) automatic() bool { return t.mech != nil }

// complain logs what has become odd since the last time.
func (p *peer) complain() {
	if n := p.record.OddECN(); n > p.odd {
		p.log().Warn("packets came with ECN fields that no sound path makes (RFC 6040 section 4.2): something on the way, or the peer, writes them wrongly", zap.Uint64("packets", n-p.odd))
		p.odd = n
	}
	if n := p.record.Wraps(); n > p.wraps {
		p.log().Warn("fragments are sent so fast that identifications come round while others may still be on their way (RFC 6864): give the tunnel a smaller mtu, so that nothing is cut", zap.Uint64("times", n-p.wraps))
		p.wraps = n
	}
}

// send sends one packet that belongs to no batch, in fragments if it must be.
func (p *path) send(pkt, scratch []byte) error {
	for f := range p.stack.Cut(pkt, p.mtu, scratch) {
		if err := p.senders[0].SendOne(f); err != nil {
			return err
		}
	}
	return nil
}
