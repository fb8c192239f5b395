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
	"sixfour/internal/icmpreply"
	"sixfour/internal/liveness"
	"sixfour/internal/pathmtu"
)

// path is one remote endpoint of a tunnel. The only peer of an automatic tunnel stands
// for all its endpoints.
type path struct {
	t    *tunnel
	cfg  config.Peer // the name never changes; the rest follows the rule of tunnel.cfg
	in   counters
	out  counters
	wire atomic.Pointer[Wire] // nil: the peer cannot be reached now

	listening atomic.Bool   // a receiver is open for packets from the peer
	answered  atomic.Uint64 // echo requests answered by the daemon itself
	record    *encap.Record
	soft      icmpreply.Soft
	icmp      icmpReceived
	echo      *echo
	// Limits the reports about the path MTU from routers; anyone can forge them.
	reports     *rate.Limiter
	narrow      sync.Mutex // held to add and remove destinations with a smaller MTU
	sample      ptbSample
	notifyFlags atomic.Uint32                 // wantedBy flags: receivers of a notice about the next packet from the peer
	arrived     atomic.Bool                   // a packet arrived: the prober must check
	large       atomic.Uint64                 // packets sent that not every path carries
	asked6      atomic.Uint64                 // large echo requests to our end that the interface answers
	watched     atomic.Bool                   // the prober knows the peer
	retired     bool                          // the prober must forget it; guarded by the prober's mu
	lookUpSoon  atomic.Pointer[chan struct{}] // asks whether its name still has the address; nil: it has no name

	// Used by the control loop only.
	resolved   netip.Addr // address of a remote given by name
	naming     naming
	unfollow   context.CancelFunc // stops following the name; nil: it has none
	registered *Wire              // the path for which packets from the peer are received
	// arrives is the path that decapsulates these packets: the latest with the same ends
	// as registered. A path with other ends gets another pointer.
	arrives     *atomic.Pointer[Wire]
	former      *atomic.Pointer[Wire] // the path to a former address of the name, accepted until then
	until       time.Time
	noXDP       string    // why packets do not leave through AF_XDP though they should
	conflicting *path     // conflicting peer: its packets cannot be told from this peer's
	through     *tunnel   // the tunnel into which the outer packets are routed
	knownMTU    mtuUpdate // the last MTU update
	lastRoute   lastRoute
	odd, wraps  uint64 // values of the record's counters when they were last logged

	hasAlternatives atomic.Bool           // its name has more than one address
	packetArrived   atomic.Bool           // a packet arrived: the keeper must check
	doubted         atomic.Bool           // an error reported that the peer cannot be reached
	marked          atomic.Bool           // the keeper will check the peer
	ways            twoWays               // packets that may arrive both by socket and by AF_XDP
	sessions        []*session            // liveness sessions, owned by the keeper
	proven          atomic.Pointer[proof] // how probes were answered; nil: none was
	expected        atomic.Int64          // probes of whether it is up that may still be answered
	asked           asked
	refused         atomic.Int64 // when a send failure was last examined, in ns since the epoch

	mu       sync.Mutex
	state    api.State
	liveness api.Liveness
	trouble  api.Trouble
	outage   api.Outage
	wasUp    bool // up at some time since leaveDead last checked
}

// Wire is how packets reach a peer. It is immutable: a changed path replaces it.
type Wire struct {
	layers  []encap.Layer // innermost first
	options encap.Options
	version int           // the tunnel's version when the path was made
	device  int           // index of the first hop's device
	on      string        // that device's name
	link    encap.PathMTU // MTU of the first hop
	mtu     encap.PathMTU // path MTU as far as known; not larger than link
	by      pathmtu.Source
	hop     hop
	life    liveness.Settings // Every is 0: no liveness checks
	between []config.Pair     // pairs of inner addresses that the two ends may have
	stack   *encap.Stack
	clamp   clamp
	from    origin
	senders sockets // one for each queue
}

// outer returns the outermost layer, whose addresses are in the packets that leave the
// host.
func (p *Wire) outer() *encap.Layer { return &p.layers[len(p.layers)-1] }

// is reports whether a path has the given layers and first-hop MTU.
func (p *Wire) is(layers []encap.Layer, link encap.PathMTU) bool {
	return p != nil && p.link == link && slices.Equal(p.layers, layers)
}

// same reports whether two paths have the same layers and hops and make the same packets.
func (p *Wire) same(o *Wire) bool {
	return p.is(o.layers, o.link) && p.mtu == o.mtu && p.by == o.by && p.hop == o.hop && p.device == o.device && p.version == o.version && slices.Equal(p.between, o.between)
}

func newPath(t *tunnel, cfg *config.Peer) *path {
	p := &path{t: t, cfg: *cfg, record: encap.NewRecord(), echo: newEcho(), reports: rate.NewLimiter(reportsPerSecond, reportsPerSecond)}
	p.state = api.State{Phase: api.Starting, Since: time.Now()}
	return p
}

// log returns the tunnel's logger, with the peer's name if it has one.
func (p *path) log() *zap.Logger {
	if p.cfg.Name == "" {
		return p.t.log
	}
	return p.t.log.With(zap.String("peer", p.cfg.Name))
}

// remote returns the configured outer address or name of the peer.
func (p *path) remote() config.Host { return p.cfg.Remotes[len(p.cfg.Remotes)-1] }

// outerVersion returns the IP version of the outermost header.
func (t *tunnel) outerVersion() int { return t.cfg.Mode.Layers[len(t.cfg.Mode.Layers)-1].Over() }

// automatic reports whether outer destinations are derived from the packets.
func (t *tunnel) automatic() bool { return t.mech != nil }

// logIrregularities logs irregularities that were counted since the last call.
func (p *path) logIrregularities() {
	if n := p.record.OddECN(); n > p.odd {
		p.log().Warn("packets arrived with a combination of inner and outer ECN fields that is not valid (RFC 6040 section 4.2): a router on the path, or the peer, sets them wrongly", zap.Uint64("packets", n-p.odd))
		p.odd = n
	}
	if n := p.record.Wraps(); n > p.wraps {
		p.log().Warn("fragments are sent so fast that their identifications repeat while earlier fragments may still be on their way (RFC 6864): give the tunnel a smaller mtu, so that packets are not fragmented", zap.Uint64("times", n-p.wraps))
		p.wraps = n
	}
}

// send sends one packet outside a batch, and fragments it if necessary.
func (p *Wire) send(pkt, scratch []byte) error {
	for f := range p.stack.Cut(pkt, p.mtu, scratch) {
		if err := p.senders[0].SendOne(f); err != nil {
			return err
		}
	}
	return nil
}
