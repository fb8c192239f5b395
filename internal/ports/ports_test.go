package ports_test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/ports"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a Sockets whose ports only record what happens to them.
type fake struct {
	mu     sync.Mutex
	refuse map[ports.Key]error
	ports  []*fakePort
	dialed int
}

// fakePort is a shard of a fake port, or a sender.
type fakePort struct {
	transport.Port
	key    ports.Key
	shard  transport.Shard
	closed chan struct{}
	once   sync.Once
}

func (f *fake) Listen(k ports.Key, s transport.Shard, _ transport.Options) (transport.Port, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refuse[k]; err != nil && s.Index == max(s.Count, 1)-1 { // the last shard: the others must be closed
		return nil, err
	}
	p := &fakePort{key: k, shard: s, closed: make(chan struct{})}
	f.ports = append(f.ports, p)
	return p, nil
}

func (f *fake) Dial(k ports.Key, _ transport.Options) (transport.Sender, error) {
	f.dialed++
	return f.sender(k), nil
}

func (f *fake) sender(k ports.Key) transport.Sender {
	p := &fakePort{key: k, closed: make(chan struct{})}
	f.ports = append(f.ports, p)
	return fakeSender{p}
}

func (f *fake) Adopt(int, ports.Key, transport.Options) (transport.Port, error) {
	return nil, transport.ErrOther
}

func (p *fakePort) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *fakePort) Sender(transport.Options) (transport.Sender, error) {
	return fakeSender{&fakePort{key: p.key, closed: make(chan struct{})}}, nil
}

type fakeSender struct{ *fakePort }

func (fakeSender) Send([]transport.Packet) (int, error) { return 0, errors.New("a fake") }
func (fakeSender) SendOne([]byte) error                 { return errors.New("a fake") }

// open returns what is open, sorted.
func (f *fake) open() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.ports {
		select {
		case <-p.closed:
		default:
			all = append(all, fmt.Sprintf("%d@%v %d/%d", p.key.Protocol, p.key.Local, p.shard.Index, p.shard.Count))
		}
	}
	slices.Sort(all)
	return all
}

// reading counts the running Reads by key, and lets each wait until its port is closed.
type reading struct {
	mu sync.Mutex
	by map[ports.Key]int
}

func (r *reading) read(k ports.Key, _ int, p transport.Port) {
	r.count(k, 1)
	defer r.count(k, -1)
	<-p.(*fakePort).closed
}

func (r *reading) count(k ports.Key, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by[k] += n; r.by[k] == 0 {
		delete(r.by, k)
	}
}

// settles waits until the Reads are as wanted.
func (r *reading) settles(t *testing.T, want map[ports.Key]int) {
	t.Helper()
	soon := wiretest.Soon(t)
	for {
		r.mu.Lock()
		got := maps.Clone(r.by)
		r.mu.Unlock()
		if maps.Equal(got, want) {
			return
		}
		if soon.Err() != nil {
			t.Fatalf("reading are %v, want %v", got, want)
		}
		time.Sleep(time.Millisecond)
	}
}

func newFake() (*ports.Set, *fake, *reading, *observer.ObservedLogs) {
	core, logs := observer.New(zap.InfoLevel)
	f, r := &fake{refuse: make(map[ports.Key]error)}, &reading{by: make(map[ports.Key]int)}
	return ports.New(ports.Config{Log: zap.New(core), Read: r.read, Sockets: f}), f, r, logs
}

var (
	here    = netip.MustParseAddr("192.0.2.1")
	sixHere = ports.Raw(header.ProtoIPv6, here)
	greHere = ports.Raw(header.GRE, here)
	icmp    = ports.Raw(header.ICMP, here)
	udpHere = ports.Key{Protocol: header.UDP, Local: netip.AddrPortFrom(here, 6635)}
)

// The set has the ports that are needed, each with its Reads, and no others.
func TestNeed(t *testing.T) {
	s, f, r, _ := newFake()
	defer s.Close()
	steps := []struct {
		needed map[ports.Key]ports.Need
		open   []string
		reads  map[ports.Key]int
	}{
		{map[ports.Key]ports.Need{sixHere: {Shards: 2}, icmp: {}}, []string{"1@192.0.2.1:0 0/1", "41@192.0.2.1:0 0/2", "41@192.0.2.1:0 1/2"}, map[ports.Key]int{sixHere: 2, icmp: 1}},
		{map[ports.Key]ports.Need{sixHere: {Shards: 3}, icmp: {}}, []string{"1@192.0.2.1:0 0/1", "41@192.0.2.1:0 0/2", "41@192.0.2.1:0 1/2"}, map[ports.Key]int{sixHere: 2, icmp: 1}},
		{map[ports.Key]ports.Need{sixHere: {Shards: 1}, greHere: {}}, []string{"41@192.0.2.1:0 0/1", "47@192.0.2.1:0 0/1"}, map[ports.Key]int{sixHere: 1, greHere: 1}},
		{map[ports.Key]ports.Need{sixHere: {Shards: 2}, udpHere: {}}, []string{"17@192.0.2.1:6635 0/1", "41@192.0.2.1:0 0/1"}, map[ports.Key]int{sixHere: 1, udpHere: 1}},
		{nil, nil, map[ports.Key]int{}},
	}
	for i, step := range steps {
		if !s.Need(step.needed) {
			t.Errorf("step %d is not complete", i)
		}
		if got := f.open(); !slices.Equal(got, step.open) {
			t.Errorf("step %d: open are %v, want %v", i, got, step.open)
		}
		r.settles(t, step.reads)
		if got := s.Open(); len(got) != len(step.needed) {
			t.Errorf("step %d: %v", i, got)
		}
		for k := range step.needed {
			if !s.Receives(k) {
				t.Errorf("step %d: no packets are received %v", i, k)
			}
		}
	}
}

// A port that cannot be opened is tried again, and logged once for each reason. The
// others are opened.
func TestCannotOpen(t *testing.T) {
	s, f, r, logs := newFake()
	defer s.Close()
	needed := map[ports.Key]ports.Need{sixHere: {Shards: 2}, greHere: {}}
	f.refuse[sixHere] = errors.New("no")
	for range 3 {
		if s.Need(needed) {
			t.Error("a port is missing, and the set is complete")
		}
	}
	if s.Err(sixHere) == nil || s.Err(greHere) != nil || s.Receives(sixHere) || !s.Receives(greHere) {
		t.Errorf("%v, %v", s.Err(sixHere), s.Err(greHere))
	}
	f.refuse[sixHere] = errors.New("never")
	s.Need(needed)
	if n := logs.FilterMessageSnippet("trying again").Len(); n != 2 {
		t.Errorf("%d log lines", n)
	}
	if got := f.open(); len(got) != 1 {
		t.Errorf("open are %v", got)
	}
	delete(f.refuse, sixHere)
	if !s.Need(needed) || s.Err(sixHere) != nil {
		t.Errorf("still missing: %v", s.Err(sixHere))
	}
	r.settles(t, map[ports.Key]int{sixHere: 2, greHere: 1})
	f.refuse[icmp] = errors.New("no")
	s.Need(map[ports.Key]ports.Need{icmp: {}})
	s.Need(nil)
	if s.Err(icmp) != nil {
		t.Error("there is an error for a port that is not needed")
	}
}

// A port that fails is closed with all its shards, and the next Need opens it again.
func TestReplace(t *testing.T) {
	s, f, r, _ := newFake()
	defer s.Close()
	needed := map[ports.Key]ports.Need{sixHere: {Shards: 2}, icmp: {}}
	s.Need(needed)
	r.settles(t, map[ports.Key]int{sixHere: 2, icmp: 1})
	bad := f.ports[slices.IndexFunc(f.ports, func(p *fakePort) bool { return p.key == sixHere && p.shard.Index == 1 })]
	if k, ok := s.Replace(bad); !ok || k != sixHere || s.Receives(sixHere) {
		t.Errorf("%v %v", k, ok)
	}
	r.settles(t, map[ports.Key]int{icmp: 1})
	if k, ok := s.Replace(bad); ok {
		t.Errorf("%v is replaced again", k)
	}
	s.Need(needed)
	r.settles(t, map[ports.Key]int{sixHere: 2, icmp: 1})
}

// What is opened ahead is used if the number of shards is right, and is closed otherwise.
func TestAhead(t *testing.T) {
	s, f, r, _ := newFake()
	defer s.Close()
	f.refuse[greHere] = errors.New("no")
	s.OpenAhead(map[ports.Key]ports.Need{sixHere: {Shards: 2}, icmp: {Shards: 2}, greHere: {}, udpHere: {}})
	s.Need(map[ports.Key]ports.Need{sixHere: {Shards: 2}, icmp: {}})
	s.CloseAhead()
	if got, want := f.open(), []string{"1@192.0.2.1:0 0/1", "41@192.0.2.1:0 0/2", "41@192.0.2.1:0 1/2"}; !slices.Equal(got, want) {
		t.Errorf("open are %v, want %v", got, want)
	}
	if n := len(f.ports); n != 2+2+1+1 { // none was opened twice but that with another number of shards
		t.Errorf("%d sockets were opened", n)
	}
	r.settles(t, map[ports.Key]int{sixHere: 2, icmp: 1})
	s.OpenAhead(map[ports.Key]ports.Need{udpHere: {}})
	s.Close()
	if got := f.open(); got != nil {
		t.Errorf("open are %v", got)
	}
}

// Senders of a raw port have sockets of their own. Those of a UDP port are opened through
// it, before it is read, and again after it was replaced.
func TestSenders(t *testing.T) {
	s, f, r, _ := newFake()
	defer s.Close()
	tx := s.NewSenders(2)
	raw, udp := ports.Origin{Key: sixHere, Mark: 7}, ports.Origin{Key: udpHere}
	first, err := tx.Open(raw, ports.Need{})
	rigtest.Must(t, err)
	again, err := tx.Open(raw, ports.Need{})
	rigtest.Must(t, err)
	if len(first) != 2 || &first[0] != &again[0] || f.dialed != 2 || len(s.Open()) != 0 {
		t.Errorf("%d senders, %d dialed, ports %v", len(first), f.dialed, s.Open())
	}
	through, err := tx.Open(udp, ports.Need{Shards: 2})
	rigtest.Must(t, err)
	if s.Receives(udpHere) || len(s.Open()) != 1 {
		t.Errorf("ports %v", s.Open())
	}
	s.Need(map[ports.Key]ports.Need{udpHere: {Shards: 2}})
	r.settles(t, map[ports.Key]int{udpHere: 2})
	same, err := tx.Open(udp, ports.Need{Shards: 2})
	rigtest.Must(t, err)
	if &same[0] != &through[0] {
		t.Error("the senders are opened again when their port is needed")
	}
	s.Replace(f.ports[2])
	anew, err := tx.Open(udp, ports.Need{Shards: 2})
	rigtest.Must(t, err)
	if &anew[0] == &through[0] {
		t.Error("the senders of a closed port are used")
	}
	tx.CloseUnused(func(o ports.Origin) bool { return o == udp })
	if tx.Len() != 1 {
		t.Errorf("%d origins", tx.Len())
	}
	tx.Close()
	s.Need(nil)
	if got := f.open(); got != nil {
		t.Errorf("open are %v", got)
	}
	f.refuse[udpHere] = errors.New("no")
	if _, err := tx.Open(udp, ports.Need{}); err == nil || tx.Len() != 0 {
		t.Errorf("%v, %d origins", err, tx.Len())
	}
}

// store is a Store in memory.
type store map[string]int

func (s store) Store(name string, fd int) (err error) {
	s[name], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return err
}

func (s store) Remove(name string) error {
	if fd, ok := s[name]; ok {
		unix.Close(fd)
		delete(s, name)
	}
	return nil
}

// passed returns what the next process inherits.
func (s store) passed() map[string][]int {
	all := make(map[string][]int)
	for name, fd := range s {
		all[name] = []int{fd}
		delete(s, name)
	}
	return all
}

// Packets that arrive while no process receives are received by the next one, whether
// their port is raw or of UDP. Their names are those that a process of an earlier version
// uses. What is not needed any more is released.
func TestKept(t *testing.T) {
	host := wiretest.Alone(t)
	e := wiretest.Ends4
	six, gre := ports.Raw(header.ProtoIPv6, e.Right), ports.Raw(header.GRE, e.Right)
	udp := ports.Key{Protocol: header.UDP, Local: netip.AddrPortFrom(e.Right, 6635)}
	needed := map[ports.Key]ports.Need{six: {Shards: 2, Keep: true}, gre: {Keep: true}, udp: {Keep: true}, ports.Raw(header.ICMP, e.Right): {ICMP: []int{3}}}
	kept, got := make(store), make(chan string, 10)
	read := func(k ports.Key, _ int, p transport.Port) {
		bufs, meta := wiretest.Buffers(8, 2000), make([]transport.Meta, 8)
		for {
			n, err := p.Receive(bufs, meta)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			for i := range n {
				got <- fmt.Sprintf("%d %d", k.Protocol, meta[i].Size)
			}
		}
	}
	start := func(passed map[string][]int) (s *ports.Set, k *ports.Kept) {
		k = ports.NewKept(kept, passed, zap.NewNop())
		s = ports.New(ports.Config{Log: zap.NewNop(), Read: read, Kept: k})
		rigtest.Must(t, host.Do(func() error {
			if passed != nil {
				s.OpenAhead(map[ports.Key]ports.Need{six: needed[six]}) // left out, because it is inherited
			}
			if !s.Need(needed) {
				t.Errorf("%v %v %v", s.Err(six), s.Err(gre), s.Err(udp))
			}
			return nil
		}))
		return s, k
	}
	first, _ := start(nil)
	names := slices.Sorted(maps.Keys(kept))
	if want := []string{"raw/41/203.0.113.2/0/2", "raw/41/203.0.113.2/1/2", "raw/47/203.0.113.2/0/1", "udp/203.0.113.2%3A6635/0/0/0/1"}; !slices.Equal(names, want) {
		t.Errorf("stored are %v, want %v", names, want)
	}
	first.Close()
	raw := wiretest.Dial(t, host, e.Left, transport.Options{})
	rigtest.Must(t, raw.SendOne(e.Outer(header.ProtoIPv6, make([]byte, 80))))
	rigtest.Must(t, raw.SendOne(e.Outer(header.UDP, []byte{0, 7, 0x19, 0xeb, 0, 12, 0, 0, 1, 2, 3, 4})))
	passed := kept.passed()
	if fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		passed["raw/47/203.0.113.2/0/1"] = append([]int{fd}, passed["raw/47/203.0.113.2/0/1"]...) // not a socket: opened anew
	}
	passed["raw/4/192.0.2.9/0/1"] = passed["raw/47/203.0.113.2/0/1"][1:]
	passed["raw/47/203.0.113.2/0/1"] = passed["raw/47/203.0.113.2/0/1"][:1]
	second, k := start(passed)
	defer second.Close()
	arrived := []string{<-got, <-got}
	slices.Sort(arrived)
	if want := []string{"17 32", "41 100"}; !slices.Equal(arrived, want) {
		t.Errorf("%v, want %v", arrived, want)
	}
	if !k.Has("raw/4/192.0.2.9/0/1") || k.Has("raw/41/203.0.113.2/0/2") {
		t.Error("what was not needed is gone, or what was needed is not")
	}
	k.CloseRest()
	if k.Take("raw/4/192.0.2.9/0/1") != -1 {
		t.Error("what was closed can be taken")
	}
	second.Need(nil)
	if len(kept) != 0 {
		t.Errorf("stored are %v", kept)
	}
}

// When reception has stopped, packets still leave through a UDP port, until the set is
// closed.
func TestStopReceiving(t *testing.T) {
	host := wiretest.Alone(t)
	e := wiretest.Ends4
	six, udp := ports.Raw(header.ProtoIPv6, e.Left), ports.Key{Protocol: header.UDP, Local: netip.AddrPortFrom(e.Left, 6635)}
	s := ports.New(ports.Config{Log: zap.NewNop(), Read: func(_ ports.Key, _ int, p transport.Port) {
		if _, err := p.Receive(wiretest.Buffers(1, 100), make([]transport.Meta, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("received: %v", err)
		}
	}})
	defer s.Close()
	var all []transport.Sender
	rigtest.Must(t, host.Do(func() (err error) {
		if !s.Need(map[ports.Key]ports.Need{six: {}, udp: {}}) {
			t.Errorf("%v %v", s.Err(six), s.Err(udp))
		}
		tx := s.NewSenders(1)
		all, err = tx.Open(ports.Origin{Key: udp}, ports.Need{})
		return err
	}))
	pkt := e.Outer(header.UDP, []byte{0x19, 0xeb, 0, 7, 0, 8, 1, 1})
	s.StopReceiving()
	if err := all[0].SendOne(pkt); err != nil {
		t.Errorf("after the end of reception: %v", err)
	}
	s.Close()
	if err := all[0].SendOne(pkt); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A port of UDP with a changed mark is opened at once: the one with the former mark, which
// is open or inherited, is closed before. One through which another user sends stays.
func TestChangedMark(t *testing.T) {
	host := wiretest.Alone(t)
	key := func(mark uint32) ports.Key {
		return ports.Key{Protocol: header.UDP, Local: netip.AddrPortFrom(wiretest.Ends4.Left, 6635), Mark: mark}
	}
	kept := make(store)
	read := func(_ ports.Key, _ int, p transport.Port) {
		p.Receive(wiretest.Buffers(1, 100), make([]transport.Meta, 1))
	}
	start := func(passed map[string][]int) *ports.Set {
		return ports.New(ports.Config{Log: zap.NewNop(), Read: read, Kept: ports.NewKept(kept, passed, zap.NewNop())})
	}
	need := ports.Need{Keep: true}
	open := func(s *ports.Set, tx *ports.Senders, mark uint32) error {
		return host.Do(func() error {
			if _, err := tx.Open(ports.Origin{Key: key(mark), Mark: mark}, need); err != nil {
				return err
			}
			if !s.Need(map[ports.Key]ports.Need{key(mark): need}) {
				return s.Err(key(mark))
			}
			return nil
		})
	}
	first := start(nil)
	defer first.Close()
	tx := first.NewSenders(1)
	defer tx.Close()
	rigtest.Must(t, open(first, tx, 1))
	rigtest.Must(t, open(first, tx, 2))
	if len(kept) != 1 {
		t.Errorf("stored are %v", kept)
	}
	if err := open(first, first.NewSenders(1), 3); !errors.Is(err, unix.EADDRINUSE) || !first.Receives(key(2)) {
		t.Errorf("another user has another mark: %v", err)
	}
	tx.Close()
	first.Close()
	second := start(kept.passed())
	defer second.Close()
	again := second.NewSenders(1)
	defer again.Close()
	rigtest.Must(t, open(second, again, 4))
	second.Need(nil)
	if len(kept) != 0 {
		t.Errorf("stored are %v", kept)
	}
}

// A multicast group is joined on its interface.
func TestGroup(t *testing.T) {
	left, right := wiretest.Two(t)
	group, e := netip.MustParseAddr("239.192.0.1"), wiretest.Ends4
	l, err := right.Handle().LinkByName("eth0")
	rigtest.Must(t, err)
	k := ports.Raw(header.ProtoIPv4, group)
	k.At, k.Device = e.Right, l.Attrs().Index
	got := make(chan int, 1)
	s := ports.New(ports.Config{Log: zap.NewNop(), Read: func(_ ports.Key, _ int, p transport.Port) {
		bufs, meta := wiretest.Buffers(8, 2000), make([]transport.Meta, 8)
		if _, err := p.Receive(bufs, meta); err == nil {
			got <- meta[0].Size
		}
	}})
	defer s.Close()
	rigtest.Must(t, right.Do(func() error {
		if !s.Need(map[ports.Key]ports.Need{k: {}}) {
			return s.Err(k)
		}
		return nil
	}))
	rigtest.Must(t, wiretest.Dial(t, left, e.Left, transport.Options{}).SendOne(wiretest.Ends{Left: e.Left, Right: group}.Outer(header.ProtoIPv4, make([]byte, 60))))
	if n := <-got; n != 80 {
		t.Errorf("%d bytes", n)
	}
}

// sessionPort is a fake port with connections.
type sessionPort struct {
	*fakePort
	peers [][]transport.SessionPeer // of each SetPeers
	fail  error
}

func (p *sessionPort) SetPeers(peers []transport.SessionPeer) error {
	if p.fail != nil {
		return p.fail
	}
	p.peers = append(p.peers, peers)
	return nil
}

// sessionSockets opens sessionPorts.
type sessionSockets struct {
	fake
	last *sessionPort
	fail error
}

func (f *sessionSockets) Listen(k ports.Key, s transport.Shard, o transport.Options) (transport.Port, error) {
	p, err := f.fake.Listen(k, s, o)
	f.last = &sessionPort{fakePort: p.(*fakePort), fail: f.fail}
	return f.last, err
}

// TestSessionPeers: a port with connections gets its peers when they change, and only then.
// While it refuses them, it counts as not open.
func TestSessionPeers(t *testing.T) {
	f := &sessionSockets{}
	s := ports.New(ports.Config{Log: zap.NewNop(), Sockets: f, Read: func(_ ports.Key, _ int, p transport.Port) { <-p.(*sessionPort).closed }})
	defer s.Close()
	k := ports.Key{Protocol: header.UDP, Local: netip.MustParseAddrPort("192.0.2.1:443"), Session: "settings"}
	a, b := transport.SessionPeer{ID: "a"}, transport.SessionPeer{ID: "b"}
	for _, peers := range [][]transport.SessionPeer{{a}, {a}, {a, b}, {b}} {
		if !s.Need(map[ports.Key]ports.Need{k: {Peers: peers}}) {
			t.Fatal(s.Err(k))
		}
	}
	if got, want := fmt.Sprint(f.last.peers), fmt.Sprint([][]transport.SessionPeer{{a}, {a, b}, {b}}); got != want {
		t.Errorf("SetPeers %s, want %s", got, want)
	}
	f.last.fail = errors.New("two peers with one key")
	if s.Need(map[ports.Key]ports.Need{k: {Peers: []transport.SessionPeer{a}}}) || !errors.Is(s.Err(k), f.last.fail) {
		t.Errorf("complete, error %v", s.Err(k))
	}
}
