package mapserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/lisp"
	"sixfour/internal/store"
	"sixfour/transport"
	"sixfour/transport/netsock"
)

// Config is the configuration of a Service.
type Config struct {
	Listen []netip.Addr // our addresses: at most one is needed of each family
	Store  string       // file with the registrations
	Mark   uint32       // firewall mark of what is sent
	Sites  []Site
}

// Service runs a Server: it receives at the control port of addresses of ours, and keeps nonces
// and registrations in a file.
type Service struct {
	log     *zap.Logger
	server  *Server
	sockets *netsock.Sockets
	waiting chan arrived

	mu     sync.Mutex
	cfg    Config
	store  store.Store // nil: it could not be opened
	broken string      // why registrations are refused
	ports  []*port
	told   map[Reason]time.Time // when it was logged last
}

// port is a socket at one of our addresses.
type port struct {
	at   netip.AddrPort
	conn *net.UDPConn // nil: it is not open
	err  error
}

// arrived is a Map-Register that was received.
type arrived struct {
	bytes []byte
	from  netip.AddrPort
}

const (
	// maxMessage is the largest control message that is read.
	maxMessage = 16 << 10
	// maxWaiting is how many registrations may wait while others are stored.
	maxWaiting = 4096
	// receiveBuffer is the size of the socket's buffer, if the kernel allows it.
	receiveBuffer = 4 << 20
	expiry        = time.Second
	reopening     = 2 * time.Second
	tellAgain     = time.Minute
)

// Open opens the store, before the process drops its privileges. Run must follow. A store that
// cannot be opened is no error: it is logged, and all registrations are refused.
func Open(c Config, log *zap.Logger) (*Service, error) {
	v := &Service{log: log, server: New(), cfg: c, waiting: make(chan arrived, maxWaiting), told: map[Reason]time.Time{}}
	v.server.Sends = v.sends
	var err error
	if v.sockets, err = netsock.New(transport.Options{Mark: c.Mark}); err != nil {
		return nil, err
	}
	for _, a := range c.Listen {
		v.ports = append(v.ports, &port{at: netip.AddrPortFrom(a, lisp.ControlPort)})
	}
	file, err := store.OpenBolt(c.Store)
	if err != nil {
		v.fail(err)
	} else {
		v.store = file
	}
	v.setSites(c.Sites)
	return v, nil
}

// Reload sets other sites.
func (v *Service) Reload(sites []Site) {
	v.setSites(sites)
	v.mu.Lock()
	v.cfg.Sites = sites
	v.mu.Unlock()
}

// setSites sets the sites, and restores what those have registered that are new.
func (v *Service) setSites(sites []Site) {
	fresh := v.server.SetSites(sites)
	if v.store == nil || len(fresh) == 0 {
		return
	}
	var items []store.Item
	if _, err := v.store.Load(context.Background(), func(i store.Item) { items = append(items, i) }); err != nil {
		v.fail(err)
		return
	}
	v.server.Restore(items, fresh, time.Now())
}

// fail notes why registrations are refused.
func (v *Service) fail(err error) {
	v.mu.Lock()
	v.broken = err.Error()
	v.mu.Unlock()
	v.log.Error("lisp: registrations are refused, because their nonces cannot be stored", zap.Error(err))
}

// Run serves until ctx ends, and then closes sockets and store.
func (v *Service) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { v.register(ctx) })
	for _, p := range v.ports {
		running.Go(func() { v.serve(ctx, p) })
	}
	running.Go(func() {
		tick := time.NewTicker(expiry)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				v.server.Expire(now)
			case <-ctx.Done():
				return
			}
		}
	})
	running.Wait()
	v.sockets.Close()
	if v.store != nil {
		if err := v.store.Close(); err != nil {
			v.log.Warn("lisp: close the store", zap.Error(err))
		}
	}
}

// serve keeps a socket open until ctx ends, and receives from it.
func (v *Service) serve(ctx context.Context, p *port) {
	for ctx.Err() == nil {
		conn, err := v.sockets.ListenUDP(p.at)
		v.mu.Lock()
		before := p.err
		p.conn, p.err = conn, err
		v.mu.Unlock()
		if err == nil {
			v.log.Info("lisp: listening", zap.Stringer("address", p.at))
			_ = conn.SetReadBuffer(receiveBuffer)
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			err = v.receive(conn)
			stop()
			conn.Close()
			v.mu.Lock()
			p.conn, p.err = nil, err
			v.mu.Unlock()
		} else if before == nil || before.Error() != err.Error() {
			v.log.Error("lisp: cannot listen: trying again", zap.Stringer("address", p.at), zap.Error(err))
		}
		select {
		case <-time.After(reopening):
		case <-ctx.Done():
		}
	}
}

// receive serves what arrives at a socket until it is closed.
func (v *Service) receive(conn *net.UDPConn) error {
	b := make([]byte, maxMessage)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // an ICMP error about what was sent
			continue
		}
		v.handle(b[:n], from)
	}
}

// handle serves a message. It does not keep b.
func (v *Service) handle(b []byte, from netip.AddrPort) {
	typ, err := lisp.MessageType(b)
	switch {
	case err != nil:
		v.server.Refuse(Malformed)
	case typ == lisp.TypeEncapsulated:
		if m, why := v.server.Answer(b, from, time.Now()); why == Served {
			v.send(m)
		}
	case typ == lisp.TypeRegister:
		select {
		case v.waiting <- arrived{append([]byte(nil), b...), from}:
		default:
			v.server.Refuse(Busy)
		}
	case typ == lisp.TypeNotifyAck: // nothing waits for it
	default:
		v.server.Refuse(Unsupported)
	}
}

// register stores and applies registrations until ctx ends: all those that wait together.
func (v *Service) register(ctx context.Context) {
	for {
		select {
		case first := <-v.waiting:
			batch := []arrived{first}
			for len(batch) < store.MaxChanges/3 && len(v.waiting) > 0 { // each makes at most three changes
				batch = append(batch, <-v.waiting)
			}
			v.admit(ctx, batch)
		case <-ctx.Done():
			return
		}
	}
}

func (v *Service) admit(ctx context.Context, batch []arrived) {
	var admitted []*Admitted
	var changes store.Txn
	for _, o := range batch {
		a, why := v.server.Admit(o.bytes, o.from, time.Now())
		if why != Served {
			v.tell(why, o.from)
			continue
		}
		admitted = append(admitted, a)
		changes.Put = append(changes.Put, a.Save...)
		changes.Delete = append(changes.Delete, a.Forget...)
	}
	if len(admitted) == 0 {
		return
	}
	if err := v.commit(ctx, changes); err != nil {
		for range admitted {
			v.server.Refuse(NotKept)
		}
		return
	}
	for _, a := range admitted {
		if notify, ok := v.server.Apply(a, time.Now()); ok {
			v.send(notify)
		}
	}
}

var errNoStore = errors.New("there is no store")

// commit stores changes. It logs an error once, until it is another one.
func (v *Service) commit(ctx context.Context, changes store.Txn) error {
	if v.store == nil {
		return errNoStore
	}
	_, err := v.store.Commit(ctx, changes)
	v.mu.Lock()
	before := v.broken
	v.broken = ""
	if err != nil {
		v.broken = err.Error()
	}
	v.mu.Unlock()
	if err != nil && before != err.Error() {
		v.log.Error("lisp: registrations are refused, because their nonces cannot be stored", zap.Error(err))
	}
	return err
}

// tell logs that a registration was refused: for each reason once in a while, because anyone can
// send them.
func (v *Service) tell(why Reason, from netip.AddrPort) {
	v.mu.Lock()
	now := time.Now()
	again := now.Sub(v.told[why]) >= tellAgain
	if again {
		v.told[why] = now
	}
	v.mu.Unlock()
	if again {
		v.log.Warn("lisp: registration refused", zap.Stringer("reason", why), zap.Stringer("from", from))
	}
}

// send sends a message from our address of its receiver's family.
func (v *Service) send(m Message) {
	v.mu.Lock()
	conn := v.connTo(m.To.Addr())
	v.mu.Unlock()
	if conn == nil {
		v.server.Refuse(Unreachable)
		return
	}
	_, _ = conn.WriteToUDPAddrPort(m.Bytes, m.To) // a message that is lost is asked for again
}

// connTo returns the socket from which to send to an address; nil: there is none. V.mu is held.
func (v *Service) connTo(a netip.Addr) *net.UDPConn {
	for _, p := range v.ports {
		if p.conn != nil && p.at.Addr().Is4() == a.Is4() {
			return p.conn
		}
	}
	return nil
}

// sends implements Server.Sends. Messages go to addresses of single hosts beyond the link; to a
// loopback address only if we listen at one.
func (v *Service) sends(a netip.Addr) bool {
	if !unicast(a) {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range v.ports {
		if p.conn != nil && p.at.Addr().Is4() == a.Is4() && (!a.IsLoopback() || p.at.Addr().IsLoopback()) {
			return true
		}
	}
	return false
}

// unicast reports whether an address can be that of one host anywhere.
func unicast(a netip.Addr) bool {
	if a.Is4() {
		b := a.As4()
		return b[0] != 0 && b[0] < 224 && !a.IsLinkLocalUnicast()
	}
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}
