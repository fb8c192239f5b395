package demo

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	"sixfour/internal/rig"
)

// flow is a stream of numbered UDP datagrams between two namespaces. The times are since it
// began. After stop, its fields may be read.
type flow struct {
	began     time.Time
	ended     time.Duration
	sent      []time.Duration // by number
	arrived   map[uint32]time.Duration
	order     []time.Duration // of the arrivals, one after the other
	reordered int

	from, to *net.UDPConn
	done     chan struct{}
	run      [2]sync.WaitGroup // sending, receiving
	once     sync.Once
}

const (
	flowSize = 100 // bytes of a datagram
	// flowPace is how often datagrams are sent, as many as are due.
	flowPace = time.Millisecond
	// flowDrain is how long the last datagrams may be under way.
	flowDrain = 300 * time.Millisecond
)

// newFlow starts a flow at a rate in packets per second. Call stop after use.
func newFlow(from, to *rig.Namespace, addr netip.AddrPort, rate int) (*flow, error) {
	f := &flow{began: time.Now(), arrived: make(map[uint32]time.Duration), done: make(chan struct{})}
	var err error
	if f.to, err = to.ListenUDP(addr); err != nil {
		return nil, err
	}
	err = from.Do(func() (err error) {
		f.from, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		f.to.Close()
		return nil, err
	}
	f.run[0].Go(func() { f.send(rate) })
	f.run[1].Go(f.receive)
	return f, nil
}

// now returns the time since the flow began.
func (f *flow) now() time.Duration { return time.Since(f.began) }

func (f *flow) send(rate int) {
	b := make([]byte, flowSize)
	tick := time.NewTicker(flowPace)
	defer tick.Stop()
	for {
		select {
		case <-f.done:
			return
		case <-tick.C:
		}
		for due := int(f.now().Seconds() * float64(rate)); len(f.sent) < due; {
			binary.BigEndian.PutUint32(b, uint32(len(f.sent)))
			f.sent = append(f.sent, f.now())
			_, _ = f.from.Write(b) // what cannot be sent is lost
		}
	}
}

func (f *flow) receive() {
	b := make([]byte, flowSize)
	next := uint32(0)
	for {
		n, err := f.to.Read(b)
		if err != nil { // closed
			return
		}
		number, now := binary.BigEndian.Uint32(b), f.now()
		if n != flowSize {
			continue
		}
		if number < next {
			f.reordered++
		}
		next = max(next, number+1)
		f.arrived[number] = now
		f.order = append(f.order, now)
	}
}

// stop ends the flow.
func (f *flow) stop() {
	f.once.Do(func() {
		close(f.done)
		f.run[0].Wait()
		f.ended = f.now()
		time.Sleep(flowDrain)
		f.from.Close()
		f.to.Close()
		f.run[1].Wait()
	})
}

// count returns how many datagrams were sent in a period.
func (f *flow) count(begin, end time.Duration) (n int) {
	for _, at := range f.sent {
		if begin <= at && at < end {
			n++
		}
	}
	return n
}

// lost returns how many of the datagrams that were sent in a period did not arrive.
func (f *flow) lost(begin, end time.Duration) (n int) {
	for number, at := range f.sent {
		if _, ok := f.arrived[uint32(number)]; !ok && begin <= at && at < end {
			n++
		}
	}
	return n
}

// outage returns the longest time in a period in which no datagram arrived.
func (f *flow) outage(begin, end time.Duration) (longest time.Duration) {
	last := begin
	for _, at := range f.order {
		if begin <= at && at < end {
			longest, last = max(longest, at-last), at
		}
	}
	return max(longest, end-last)
}
