package engine

import (
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/internal/netcfg"
	"sixfour/internal/pathmtu"
	"sixfour/transport"
	"sixfour/tun"
)

// tunnel is one TUN interface with its peer. The control loop owns it; what its
// two data goroutines read is behind atomic pointers.
type tunnel struct {
	cfg  config.Tunnel
	log  *zap.Logger
	path atomic.Pointer[path] // nil: there is no way to the peer now
	in   counters
	out  counters

	device    atomic.Pointer[tun.Device] // nil: the interface is gone
	listening atomic.Bool                // packets from the peer find us
	answered  atomic.Uint64              // echo requests, by the daemon itself
	index     atomic.Int64               // of the interface, in its namespace
	touched   atomic.Bool                // somebody changed the interface

	queues int
	record *encap.Record

	fragments reassembly

	reply  *replier
	soft   softState
	heard  heard
	prober *prober
	echo   *echo
	// Limits what routers say of the path MTU, true or not.
	reports *rate.Limiter
	witness witness
	unknown atomic.Bool   // whether the peer answers probes; the prober wants to hear of packets from it
	arrived atomic.Bool   // there was one
	large   atomic.Uint64 // packets sent that not every path carries

	// Of the control loop only.
	link       *netcfg.Link
	mtu        encap.TunnelMTU // that the interface has
	down       bool            // the interface is
	resolved   netip.Addr      // of a remote that is a name
	noXDP      string          // why packets do not leave through AF_XDP though they should
	registered *path           // by which packets from the peer find us
	through    *tunnel         // into which outer packets are routed
	lesson     lesson          // what was learnt of the path last
	odd, wraps uint64          // of the record, when they were logged
	reopen     time.Time       // not before: after the interface was lost
	wg         sync.WaitGroup  // of the goroutines that use the device

	mu    sync.Mutex
	state State
}

// path is how packets reach the peer. It is immutable: a change replaces it.
type path struct {
	endpoints encap.Endpoints
	link      encap.PathMTU // of the first hop
	mtu       encap.PathMTU // of all that is known; not larger
	by        pathmtu.Source
	hop       hop
	stack     *encap.Stack
	clamp     clamp
	senders   []transport.Sender // one for each queue
}

func newTunnel(cfg config.Tunnel, queues int, p *prober, log *zap.Logger) *tunnel {
	t := &tunnel{
		cfg: cfg, log: log.With(zap.String("tunnel", cfg.Name)), queues: queues,
		record: encap.NewRecord(), prober: p, echo: newEcho(), reports: rate.NewLimiter(reportsPerSecond, reportsPerSecond),
	}
	t.reply = newReplier(t)
	t.setState(Starting, "")
	return t
}

// maxQueues is how many queues a tunnel has at most if the configuration does not
// say.
const maxQueues = 4

// queues is how many queues a tunnel has of n tunnels: one for every two
// processors, because each is two goroutines, and on two processors a second one
// was measured to cost a tenth of the throughput. Many tunnels keep all busy with
// one each, and a second one costs the kernel megabytes.
func queues(configured, n int) int {
	if configured != 0 {
		return configured
	}
	return max(1, min(runtime.NumCPU()/2/n, maxQueues))
}

// offload is the most that the kernel is asked to leave to us.
func (t *tunnel) offload() tun.Offload {
	if t.cfg.NoOffload {
		return tun.OffloadNone
	}
	return tun.OffloadUDP
}

// newSources are the checks for what comes out of the tunnel, with the outer
// address that is ours now.
func (t *tunnel) newSources(local netip.Addr) *resolve.Sources {
	own := make([]netip.Addr, 0, len(t.cfg.Address))
	for _, p := range t.cfg.Address {
		own = append(own, p.Addr())
	}
	ends := []netip.Addr{local}
	if t.cfg.Local6.IsValid() {
		ends = append(ends, t.cfg.Local6)
	}
	return resolve.NewSources(own, ends, t.cfg.Strict)
}

// has6 reports whether the interface carries IPv6, and so needs 1280 bytes.
func (t *tunnel) has6() bool {
	for _, p := range t.cfg.Address {
		if p.Addr().Is6() {
			return true
		}
	}
	for _, p := range t.cfg.Routes {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}

// wantMTU is what the interface's MTU should be over a path.
func (t *tunnel) wantMTU(p encap.PathMTU) encap.TunnelMTU {
	if t.cfg.MTU != 0 {
		return t.cfg.MTU
	}
	return t.cfg.Mode.TunnelMTU(p, t.cfg.Options, t.has6())
}

// clamp is what TCP segments inside may add up to, by IP version; 0: anything.
// It goes with the path, so that connections that begin fit it.
type clamp struct{ ipv4, ipv6 encap.TunnelMTU }

func (t *tunnel) newClamp(p *path) clamp {
	if t.cfg.NoMSSClamp {
		return clamp{}
	}
	iface := t.wantMTU(p.link)
	return clamp{min(iface, p.stack.Limit(4)), min(iface, p.stack.Limit(6))}
}

// apply lowers the MSS that a TCP SYN offers.
func (c *clamp) apply(inner []byte) {
	mtu := c.ipv4
	if header.Version(inner) == 6 {
		mtu = c.ipv6
	}
	if mtu != 0 {
		encap.ClampMSS(inner, mtu)
	}
}

// assumedMTU is the path MTU before there is a path: Ethernet's.
const assumedMTU encap.PathMTU = 1500

// open makes the interface and starts the goroutines that use it. Lost is called,
// once, when the interface is gone, from another goroutine.
func (t *tunnel) open(lost func()) error {
	if t.mtu == 0 {
		t.mtu = t.wantMTU(assumedMTU)
	}
	link, err := netcfg.Open(netcfg.Settings{
		Name:      t.cfg.Name,
		Namespace: t.cfg.Netns,
		MTU:       int(t.mtu),
		Addresses: t.cfg.Address,
		Routes:    t.cfg.Routes,
		Queues:    t.queues,
		Offload:   t.offload(),
	})
	if err != nil {
		return err
	}
	t.link, t.down = link, false
	t.index.Store(int64(link.Index()))
	t.device.Store(link.Device)
	if got, want := link.Device.Offload(), t.offload(); got < want {
		t.log.Info("the kernel leaves less to us than it could: packets cost more", zap.Stringer("offload", got), zap.Stringer("wanted", want))
	}
	var once sync.Once
	for i, q := range link.Device.Queues() {
		out := newOutbound(t, q, i)
		t.wg.Go(func() {
			out.run()
			once.Do(lost)
		})
	}
	return nil
}

// look sees how the interface is after somebody changed it, and puts back what
// the kernel took away when it was down.
func (t *tunnel) look() {
	if t.link == nil || !t.touched.Swap(false) {
		return
	}
	up, err := t.link.IsUp()
	if err == nil && up {
		err = t.link.Restore()
	}
	switch {
	case err != nil:
		t.log.Warn("look at the interface", zap.Error(err))
	case !up && !t.down:
		t.log.Warn("interface is down: packets are lost until it is up again (ip link set " + t.cfg.Name + " up)")
	case up && t.down:
		t.log.Info("interface is up again")
	}
	t.down = err == nil && !up
}

// complain logs what has become odd since the last time.
func (t *tunnel) complain() {
	if n := t.record.OddECN(); n > t.odd {
		t.log.Warn("packets came with ECN fields that no sound path makes (RFC 6040 section 4.2): something on the way, or the peer, writes them wrongly", zap.Uint64("packets", n-t.odd))
		t.odd = n
	}
	if n := t.record.Wraps(); n > t.wraps {
		t.log.Warn("fragments are sent so fast that identifications come round while others may still be on their way (RFC 6864): give the tunnel a smaller mtu, so that nothing is cut", zap.Uint64("times", n-t.wraps))
		t.wraps = n
	}
}

// close removes the interface and waits for the goroutines that used it.
func (t *tunnel) close() {
	if t.link == nil {
		return
	}
	t.device.Store(nil)
	if err := t.link.Close(); err != nil {
		t.log.Warn("close interface", zap.Error(err))
	}
	t.wg.Wait()
	t.reply.close()
	t.link = nil
}
