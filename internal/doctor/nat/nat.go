// Package nat finds out what NAT is between this host and the Internet, with a Teredo server,
// which says from which address and port packets come. It has two addresses, and answers from
// either: so it shows whether the NAT uses the same address and port for all destinations
// (mapping), and from where it lets packets in (filtering; RFC 4787, and RFC 5780 for the
// method).
package nat

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/teredo"
)

// Client makes the questions to a Teredo server, and reads its answers.
type Client interface {
	Solicitation(nonce uint64, otherAddress bool) []byte
	Mapping(payload []byte, nonce uint64) (at header.Mapping, ok bool)
}

// Question says how to find out about the NAT.
type Question struct {
	Client  Client
	Servers [2]netip.Addr // the two addresses of the server
	Local   netip.Addr    // our outer address
	Mark    uint32        // of the packets
}

// Mapping is how a NAT chooses the address and port of outgoing packets (RFC 4787 section 4.1).
type Mapping uint8

// The mapping behaviours.
const (
	NoMapping   Mapping = iota // addresses and ports are not changed: there is no NAT
	Independent                // the same address and port for all destinations
	Dependent                  // others for each destination: symmetric
)

// Filtering is which incoming packets pass (RFC 4787 section 5).
type Filtering uint8

// The filtering behaviours.
const (
	FilteringUnknown Filtering = iota
	AnyHost                    // from all hosts
	SameAddress                // from addresses to which something was sent
	SamePort                   // from addresses and ports to which something was sent
)

// Behaviour is what was found out.
type Behaviour struct {
	Local     netip.AddrPort    // from where packets to the server were sent
	Mapped    [2]netip.AddrPort // from where they came, for its two addresses; invalid: no answer
	Mapping   Mapping
	Filtering Filtering
	Hairpin   bool // packets to our own mapping come back
}

// PreservesPorts reports whether the NAT uses the ports of the hosts behind it.
func (b *Behaviour) PreservesPorts() bool { return b.Mapped[0].Port() == b.Local.Port() }

// Sequential reports whether the port for the second destination follows that for the first.
func (b *Behaviour) Sequential() bool {
	const near = 4
	d := int(b.Mapped[1].Port()) - int(b.Mapped[0].Port())
	return b.Mapping == Dependent && b.Mapped[0].Addr() == b.Mapped[1].Addr() && d > 0 && d <= near
}

// ErrSilent means that the server does not answer.
var ErrSilent = errors.New("the server does not answer")

const (
	tries = 3
	pause = 500 * time.Millisecond // between two tries
	// otherPort is a port of the server from which it sends nothing.
	otherPort = teredo.Port + 1
)

// Find asks the server. With an error that is ErrSilent, the result has the answers that came.
func Find(ctx context.Context, q Question) (*Behaviour, error) {
	var socks [4]*socket
	for i := range socks {
		s, err := open(ctx, &q)
		if err != nil {
			return nil, err
		}
		defer s.Close()
		socks[i] = s
	}
	b := &Behaviour{Local: netip.AddrPortFrom(q.Local, socks[0].port())}
	// Nothing is sent to the second address before it is known whether its packets pass: some
	// filters let an address in for all ports.
	var fromAny, fromAddress bool
	err := atOnce(
		func() (err error) { b.Mapped[0], _, err = socks[0].ask(ctx, 0, false, nil); return err },
		func() (err error) { _, fromAny, err = socks[1].ask(ctx, 0, true, nil); return err },
	)
	if err != nil {
		return nil, err
	}
	first := b.Mapped[0].IsValid()
	err = atOnce(
		func() (err error) { b.Mapped[1], _, err = socks[0].ask(ctx, 1, false, nil); return err },
		func() (err error) {
			if first && !fromAny {
				_, fromAddress, err = socks[2].ask(ctx, 0, true, socks[2].openAddress)
			}
			return err
		},
	)
	switch {
	case err != nil:
		return nil, err
	case !first, !b.Mapped[1].IsValid():
		return b, ErrSilent
	}
	b.classify(fromAny, fromAddress)
	if b.Mapping != NoMapping {
		b.Hairpin = socks[0].hears(ctx, socks[3], b.Mapped[0])
	}
	return b, nil
}

// atOnce calls functions concurrently, and waits for them.
func atOnce(calls ...func() error) error {
	failed := make([]error, len(calls))
	var wg sync.WaitGroup
	for i, call := range calls {
		wg.Go(func() { failed[i] = call() })
	}
	wg.Wait()
	return errors.Join(failed...)
}

// classify draws the conclusions from the answers.
func (b *Behaviour) classify(fromAny, fromAddress bool) {
	switch {
	case b.Mapped[0] != b.Mapped[1]:
		b.Mapping = Dependent
	case b.Mapped[0] != b.Local:
		b.Mapping = Independent
	default:
		b.Mapping = NoMapping
	}
	switch {
	case fromAny:
		b.Filtering = AnyHost
	case fromAddress:
		b.Filtering = SameAddress
	default:
		b.Filtering = SamePort
	}
}

// socket is a UDP port.
type socket struct {
	*net.UDPConn
	q *Question
}

func open(ctx context.Context, q *Question) (*socket, error) {
	var config net.ListenConfig
	if q.Mark != 0 {
		config.Control = func(_, _ string, c syscall.RawConn) (err error) {
			if err2 := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(q.Mark)) }); err2 != nil {
				return err2
			}
			return err
		}
	}
	c, err := config.ListenPacket(ctx, "udp4", netip.AddrPortFrom(q.Local, 0).String())
	if err != nil {
		return nil, err
	}
	return &socket{c.(*net.UDPConn), q}, nil
}

func (s *socket) port() uint16 { return s.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// server returns one of the server's addresses, with its port.
func (s *socket) server(i int) netip.AddrPort { return netip.AddrPortFrom(s.q.Servers[i], teredo.Port) }

// ask sends a solicitation to one of the server's addresses until an answer comes: from the
// same one or, with otherAddress, from the other one. Each time it calls before first, if that
// is not nil.
func (s *socket) ask(ctx context.Context, to int, otherAddress bool, before func() error) (at netip.AddrPort, ok bool, err error) {
	nonce := binary.NativeEndian.Uint64(random(8))
	from := s.server(to)
	if otherAddress {
		from = s.server(1 - to)
	}
	for range tries {
		if before != nil {
			if err := before(); err != nil {
				return at, false, err
			}
		}
		if _, err := s.WriteToUDPAddrPort(s.q.Client.Solicitation(nonce, otherAddress), s.server(to)); err != nil {
			return at, false, fmt.Errorf("send to %v: %w", s.server(to), err)
		}
		if s.receive(ctx, func(payload []byte, sender netip.AddrPort) bool {
			m, answers := s.q.Client.Mapping(payload, nonce)
			at = m.AddrPort()
			return answers && sender == from
		}) {
			return at, true, nil
		}
		if ctx.Err() != nil {
			return netip.AddrPort{}, false, ctx.Err()
		}
	}
	return netip.AddrPort{}, false, nil
}

// openAddress makes a NAT that filters by addresses let packets of the server's second address
// in. It sends to another port, so that one that filters by ports does not.
func (s *socket) openAddress() error {
	to := netip.AddrPortFrom(s.q.Servers[1], otherPort)
	if _, err := s.WriteToUDPAddrPort(nil, to); err != nil {
		return fmt.Errorf("send to %v: %w", to, err)
	}
	return nil
}

// hears reports whether packets of another socket arrive that are sent to a mapping of this
// one.
func (s *socket) hears(ctx context.Context, other *socket, at netip.AddrPort) bool {
	nonce := random(16)
	for range 2 {
		if _, err := other.WriteToUDPAddrPort(nonce, at); err != nil {
			return false
		}
		if s.receive(ctx, func(payload []byte, _ netip.AddrPort) bool { return string(payload) == string(nonce) }) {
			return true
		}
	}
	return false
}

// random returns bytes that nobody can guess.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // it never fails
	return b
}

// receive reads until a packet is the one that is waited for, or the pause ends.
func (s *socket) receive(ctx context.Context, is func(payload []byte, from netip.AddrPort) bool) bool {
	end := time.Now().Add(pause)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	if s.SetReadDeadline(end) != nil {
		return false
	}
	b := make([]byte, 2048)
	for {
		n, from, err := s.ReadFromUDPAddrPort(b)
		if err != nil {
			return false
		}
		if is(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())) {
			return true
		}
	}
}
