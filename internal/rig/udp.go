package rig

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"
)

// UDPOptions say how to send datagrams.
type UDPOptions struct {
	Interval time.Duration // between two datagrams; default 1 ms, so that no buffer overflows
	Timeout  time.Duration // how long to wait for the last answers; default 1 s
	DF       bool          // never fragment; otherwise this host and routers may fragment
}

// Datagram is the result for one datagram.
type Datagram struct {
	Size    int   // bytes of UDP payload: the packet is 28 bytes longer in IPv4, 48 in IPv6
	Err     error // the kernel refused to send it
	Arrived bool
	Intact  bool // arrived with the content that was sent
}

// Intact counts the datagrams that arrived intact.
func Intact(ds []Datagram) int {
	n := 0
	for _, d := range ds {
		if d.Intact {
			n++
		}
	}
	return n
}

// A datagram of an exchange is a header, then pseudo-random bytes that depend on the
// header, so that the receiver can check them. An answer is a header and a byte that is
// 1 if the datagram was intact.
//
//	0               16              20              24
//	+---------------+---------------+---------------+------
//	| seed          | number        | size          | noise
//	+---------------+---------------+---------------+------
const (
	udpSeedLen   = 16
	udpHeaderLen = udpSeedLen + 8
	udpAnswerLen = udpHeaderLen + 1
)

// MinDatagram is the smallest datagram that UDPExchange can number, in bytes.
const MinDatagram = udpHeaderLen

func udpContent(header []byte, size int) []byte {
	var seed [32]byte
	copy(seed[:], header[:udpSeedLen])
	b := noise(seed, binary.BigEndian.Uint32(header[udpSeedLen:]), size)
	copy(b, header[:udpHeaderLen])
	return b
}

// UDPExchange sends datagrams of the given sizes from one namespace to an address of
// another, which checks them. A short answer reports that a datagram arrived and whether
// it was intact. Port 0 means any free port.
func UDPExchange(ctx context.Context, from, to *Namespace, addr netip.AddrPort, sizes []int, o UDPOptions) ([]Datagram, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	c, err := to.ListenUDP(addr)
	if err != nil {
		return nil, err
	}
	serveCtx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- ServeUDP(serveCtx, c) }()
	ds, err := SendUDP(ctx, from, c.LocalAddr().(*net.UDPAddr).AddrPort(), sizes, o)
	stop()
	return ds, errors.Join(<-served, err)
}

// ServeUDP is the receiving end of a UDPExchange: it checks and answers datagrams until
// ctx ends, which is not an error. It closes c.
func ServeUDP(ctx context.Context, c *net.UDPConn) error {
	defer c.Close()
	defer interruptOnDone(ctx, c)()
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("receive datagrams at %v: %w", c.LocalAddr(), err)
		}
		if n < udpHeaderLen {
			continue
		}
		got := buf[:n]
		answer := append(slices.Clone(got[:udpHeaderLen]), 0)
		size := int(binary.BigEndian.Uint32(got[udpSeedLen+4:]))
		if n == size && bytes.Equal(got, udpContent(got, size)) {
			answer[udpHeaderLen] = 1
		}
		// An answer that cannot be sent shows as a datagram that did not arrive.
		_, _ = c.WriteToUDPAddrPort(answer, from)
	}
}

// SendUDP is the sending end of a UDPExchange.
func SendUDP(ctx context.Context, from *Namespace, addr netip.AddrPort, sizes []int, o UDPOptions) ([]Datagram, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if o.Interval == 0 {
		o.Interval = time.Millisecond
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	x := &udpExchange{addr: addr, ds: make([]Datagram, len(sizes))}
	for i, size := range sizes {
		if size < MinDatagram || size > 0xffff {
			return nil, fmt.Errorf("datagram of %d bytes: sizes go from %d to %d", size, MinDatagram, 0xffff)
		}
		x.ds[i].Size = size
	}
	if _, err := crand.Read(x.seed[:]); err != nil {
		return nil, err
	}
	op := fmt.Sprintf("exchange datagrams with %v", addr)
	if err := x.open(from, o.DF); err != nil {
		return nil, from.explain(op, err)
	}
	defer x.conn.Close()
	defer interruptOnDone(ctx, x.conn)()
	if err := x.run(ctx, o); err != nil {
		return nil, from.explain(op, causeOf(ctx, err))
	}
	return x.ds, nil
}

type udpExchange struct {
	conn     *net.UDPConn
	addr     netip.AddrPort
	seed     [udpSeedLen]byte
	ds       []Datagram
	answered int
}

// open makes the socket. The socket is not connected: a connected one would report an
// ICMP error about one datagram when the next is sent.
func (x *udpExchange) open(from *Namespace, df bool) error {
	network, v6 := "udp4", x.addr.Addr().Is6()
	if v6 {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = setDF(int(fd), v6, df) })
		return errors.Join(cerr, err)
	}}
	return from.Do(func() error {
		c, err := lc.ListenPacket(context.Background(), network, ":0")
		if err != nil {
			return err
		}
		x.conn = c.(*net.UDPConn)
		return nil
	})
}

func (x *udpExchange) run(ctx context.Context, o UDPOptions) error {
	refused := 0
	for i := range x.ds {
		header := binary.BigEndian.AppendUint32(slices.Clone(x.seed[:]), uint32(i))
		header = binary.BigEndian.AppendUint32(header, uint32(x.ds[i].Size))
		if _, x.ds[i].Err = x.conn.WriteToUDPAddrPort(udpContent(header, x.ds[i].Size), x.addr); x.ds[i].Err != nil {
			refused++
		}
		wait := o.Interval
		if i == len(x.ds)-1 {
			wait = o.Timeout
		}
		if err := x.receive(ctx, wait, len(x.ds)-refused); err != nil {
			return err
		}
	}
	return nil
}

// receive reads answers until there are enough of them, or the time is over.
func (x *udpExchange) receive(ctx context.Context, wait time.Duration, enough int) error {
	if err := x.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	buf := make([]byte, udpAnswerLen+1)
	for x.answered < enough {
		if err := ctx.Err(); err != nil { // checked after the deadline is set, which may have overwritten that of ctx
			return err
		}
		n, _, err := x.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		number := int(binary.BigEndian.Uint32(buf[udpSeedLen:]))
		if n != udpAnswerLen || !bytes.Equal(buf[:udpSeedLen], x.seed[:]) || number >= len(x.ds) {
			continue
		}
		d := &x.ds[number]
		if !d.Arrived {
			x.answered++
		}
		d.Arrived = true
		d.Intact = d.Intact || buf[udpHeaderLen] == 1
	}
	return nil
}
