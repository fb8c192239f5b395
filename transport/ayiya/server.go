package ayiya

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/access"
)

// ServerConfig is the configuration of a server.
type ServerConfig struct {
	Authority access.Authority

	// Local is where the server receives. The address may be unspecified: then packets to a
	// client leave from the address to which the client sent last. If the port is 0, the
	// kernel chooses one.
	Local netip.AddrPort

	// Shards is how many sockets and goroutines receive; 0: one for each processor, but at
	// most 4.
	Shards int

	Hashes []ayiya.Hash // that clients may use; nil: SHA1 and MD5, as the draft has them

	Window  time.Duration // by how much the clocks may differ; 0: ayiya.DefaultWindow
	Silence time.Duration // after which a client has left; 0: DefaultSilence

	// Notice is sent to a client that is attached; nil: none.
	Notice *ayiya.Notice

	// Now is the time; nil: time.Now.
	Now func() time.Time

	reports time.Duration // between reports of refused packets of one client; 0: a second
}

// AllHashes returns the methods of the draft, and SHA256.
func AllHashes() []ayiya.Hash { return []ayiya.Hash{ayiya.SHA1, ayiya.MD5, ayiya.SHA256} }

// DefaultSilence is after which time without a packet a client has left.
const DefaultSilence = 120 * time.Second

// maxShards is how many shards there are without ServerConfig.Shards.
const maxShards = 4

// maxWindow is the largest ServerConfig.Window. A client is remembered for twice the time.
const maxWindow = time.Hour

// Server serves the clients of a broker. A client is attached by its first packet with the
// right signature, and has left after some time of silence. When the broker wants a client's
// account to be asked for again, such as after a change of the secret, it ends the client's
// link: the next packet attaches the client again.
//
// Nothing is answered to a packet without the right signature.
type Server struct {
	config   ServerConfig
	hashes   [16]bool // by ayiya.Hash
	start    time.Time
	shards   []*outbox
	members  table
	arriving arriving

	closed  chan struct{}
	close   sync.Once
	running sync.WaitGroup
}

// NewServer opens a server, in the network namespace of the calling thread. Of the options,
// Mark and Device are used.
func NewServer(c ServerConfig, o transport.Options) (*Server, error) {
	op := fmt.Sprintf("open AYIYA server at %v", c.Local)
	s := &Server{config: c, closed: make(chan struct{})}
	if err := s.setDefaults(); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	s.start = s.config.Now()
	s.arriving.init(s)
	o = transport.Options{Mark: o.Mark, Device: o.Device}
	for i := range s.config.Shards {
		if err := s.open(transport.Shard{Index: i, Count: s.config.Shards}, o); err != nil {
			return nil, fmt.Errorf("%s: %w", op, errors.Join(err, s.Close()))
		}
	}
	for _, b := range s.shards {
		s.running.Go(func() { s.receive(b) })
		s.running.Go(b.run)
	}
	s.running.Go(s.sweep)
	return s, nil
}

func (s *Server) setDefaults() error {
	c := &s.config
	if c.Shards == 0 {
		c.Shards = min(runtime.GOMAXPROCS(0), maxShards)
	}
	if c.Window == 0 {
		c.Window = ayiya.DefaultWindow
	}
	if c.Silence == 0 {
		c.Silence = DefaultSilence
	}
	if c.Hashes == nil {
		c.Hashes = []ayiya.Hash{ayiya.SHA1, ayiya.MD5}
	}
	if c.reports == 0 {
		c.reports = time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	for _, h := range c.Hashes {
		if h.Size() == 0 {
			return fmt.Errorf("%v: choose md5, sha1 or sha256", h)
		}
		s.hashes[h] = true
	}
	if c.Shards < 1 || c.Window < time.Second || c.Window > maxWindow || c.Silence < 0 {
		return fmt.Errorf("shards %d, window %v or silence %v is out of range", c.Shards, c.Window, c.Silence)
	}
	return nil
}

// open opens the socket of a shard.
func (s *Server) open(shard transport.Shard, o transport.Options) error {
	local := s.config.Local
	if shard.Index > 0 {
		local = s.Local()
	}
	port, err := transport.ListenUDP(local, shard, o)
	if err != nil {
		return err
	}
	b, err := newOutbox(port, o, s.config.Now)
	if err != nil {
		return errors.Join(err, port.Close())
	}
	s.shards = append(s.shards, b)
	return nil
}

// Local returns the address and port at which the server receives.
func (s *Server) Local() netip.AddrPort { return s.shards[0].port.Local() }

// Close ends the server. Its clients leave.
func (s *Server) Close() error {
	err := net.ErrClosed
	s.close.Do(func() {
		err = nil
		close(s.closed)
		s.arriving.close()
		for _, b := range s.shards {
			b.close()
			err = errors.Join(err, b.port.Close())
		}
		s.running.Wait()
		for _, m := range s.members.all() {
			if of := m.attached(); of != nil {
				of.leave("the server is closed")
			}
		}
	})
	return err
}

// elapsed returns the time since the start of the server, in nanoseconds. Changes of the
// host's clock do not matter.
func (s *Server) elapsed(now time.Time) int64 { return int64(now.Sub(s.start)) }

// arrivals is how many buffers receive at a time. A buffer may get several datagrams.
const arrivals = 32

// pause is for how long a goroutine waits after an error of its socket, which is about the
// host, and not about a packet.
const pause = 10 * time.Millisecond

// receive receives packets until the socket is closed.
func (s *Server) receive(b *outbox) {
	bufs, meta := make([][]byte, arrivals), make([]transport.Meta, arrivals)
	for i := range bufs {
		bufs[i] = make([]byte, transport.MaxPacket)
	}
	for {
		n, err := b.port.Receive(bufs, meta)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(pause)
			continue
		}
		now := s.config.Now()
		for i, m := range meta[:n] {
			each := m.Each
			if each == 0 {
				each = m.Size
			}
			for data := bufs[i][:m.Size]; len(data) > 0; {
				size := min(each, len(data))
				s.arrived(b, data[:size:size], &m.Outer, now)
				data = data[size:]
			}
		}
	}
}

// arrived takes a packet.
func (s *Server) arrived(b *outbox, packet []byte, o *header.Outer, now time.Time) {
	m, err := ayiya.Parse(packet)
	if err != nil {
		s.refuse(o.From, "", refusalOf(err))
		return
	}
	id, ok := m.Address()
	switch {
	case !ok:
		s.refuse(o.From, "", otherIdentity)
		return
	case !s.hashes[m.Hash&15]:
		s.refuse(o.From, "", otherHash)
		return
	}
	client := s.members.find(&id)
	if client == nil {
		s.arriving.put(b, packet, &id, o)
		return
	}
	client.mu.Lock()
	of, key := client.session, client.key
	client.mu.Unlock()
	if of == nil {
		s.arriving.put(b, packet, &id, o)
		return
	}
	// To verify a packet costs no more than to ask whether its source may try.
	if !m.Verify(&key) {
		s.arriving.put(b, packet, &id, o) // the secret or the hash may have changed
		return
	}
	if to, ok := s.accept(client, &m, o, now); ok && to != nil {
		of.take(to, &m)
	} else if !ok {
		s.refuseLate(client, of.account, &m, o, now)
	}
}

// accept reports whether a verified packet of a client is valid now and no copy. It notes that
// and where the client is, and tells the broker when the client has moved, and once a second.
// To is nil if the client is not attached.
func (s *Server) accept(client *member, m *ayiya.Message, o *header.Outer, now time.Time) (to access.Client, ok bool) {
	if s.skewed(ayiya.Skew(m.Epoch, now)) {
		return nil, false
	}
	at := s.elapsed(now)
	client.mu.Lock()
	same := client.last.from == o.From
	if age := client.recent.Check(m); age == ayiya.Copy || age == ayiya.Old && !same {
		client.mu.Unlock()
		return nil, false
	}
	client.recent.Add(m, s.config.Window)
	client.heard = at
	tell := !same || client.last.at != o.At
	if tell {
		client.last = place{o.From, o.At}
	}
	if to = client.client; at-client.told >= int64(time.Second) {
		tell = true
	}
	if tell {
		client.told = at
	}
	client.mu.Unlock()
	if tell && to != nil {
		client.tell(to)
	}
	return to, true
}

func (s *Server) skewed(skew time.Duration) bool {
	return skew > s.config.Window || skew < -s.config.Window
}

// sweepTime is how often silent clients are looked for, at most and at least.
const (
	sweepLeast = 50 * time.Millisecond
	sweepMost  = 5 * time.Second
)

// sweep ends sessions of clients that are silent, and forgets clients that have left.
func (s *Server) sweep() {
	tick := time.NewTicker(min(max(s.config.Silence/8, sweepLeast), sweepMost))
	defer tick.Stop()
	for {
		select {
		case <-s.closed:
			return
		case <-tick.C:
		}
		now := s.elapsed(s.config.Now())
		var silent []*session
		s.members.sweep(func(m *member) bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			age, of := time.Duration(now-m.heard), m.session
			if of != nil && age > s.config.Silence {
				silent = append(silent, of)
			}
			return of != nil || m.attaching || age < 2*s.config.Window
		})
		for _, of := range silent {
			of.leave(fmt.Sprintf("nothing has come from the client for %v", s.config.Silence))
		}
	}
}
