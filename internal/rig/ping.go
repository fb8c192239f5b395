package rig

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// PingOptions say how to ping; the zero value sends one small packet.
type PingOptions struct {
	Source      netip.Addr    // default: what routing chooses
	Size        int           // bytes of data: the packet is 28 bytes longer in IPv4, 48 in IPv6
	Count       int           // echo requests to send; default 1
	Interval    time.Duration // between two requests; default: send the next after the answer
	Timeout     time.Duration // how long to wait for an answer or, with an Interval, for the last ones; default 1 s
	TTL         int           // or hop limit; default the system's
	TOS         int           // or traffic class
	DF          bool          // never fragment; otherwise this host and routers may fragment
	IPv4Options []byte        // as in the header, padded to a multiple of 4
}

// PingResult is the result of a Ping.
type PingResult struct {
	Sent       int             // requests that the kernel accepted
	Received   int             // requests answered with the same data
	Corrupt    int             // answers with other data
	Duplicates int             // further answers to the same request
	RTTs       []time.Duration // of the answers in Received, in their order
	Errors     []error         // requests that the kernel refused to send
	ICMP       []ICMPError     // errors about our requests
}

// ICMPError is an ICMP error message that quotes one of our requests.
type ICMPError struct {
	From       netip.Addr
	Type, Code int
	MTU        int // from a message that a packet was too big
}

func (e ICMPError) String() string {
	return fmt.Sprintf("ICMP type %d code %d from %v, MTU %d", e.Type, e.Code, e.From, e.MTU)
}

// echoLen is the length of an ICMP echo's header, in bytes.
const echoLen = 8

// pinger is the state of one call of Ping.
type pinger struct {
	PingOptions
	conn  *net.IPConn
	dst   netip.Addr
	id    int
	seed  [32]byte // of the data: an answer to another process's request does not match
	sent  []time.Time
	found []bool
	res   PingResult
}

// Ping sends ICMP echo requests from inside a namespace and compares the data of the
// answers. Lost requests are not an error.
func Ping(ctx context.Context, from *Namespace, dst netip.Addr, o PingOptions) (PingResult, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if o.Count == 0 {
		o.Count = 1
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	p := &pinger{PingOptions: o, dst: dst, id: rand.IntN(1 << 16), sent: make([]time.Time, o.Count), found: make([]bool, o.Count)}
	if _, err := crand.Read(p.seed[:]); err != nil {
		return p.res, err
	}
	if err := p.open(from); err != nil {
		return p.res, from.explain("ping "+dst.String(), err)
	}
	defer p.conn.Close()
	defer interruptOnDone(ctx, p.conn)()
	if err := p.run(ctx); err != nil {
		return p.res, from.explain("ping "+dst.String(), causeOf(ctx, err))
	}
	return p.res, nil
}

func (p *pinger) open(from *Namespace) error {
	network, local := "ip4:icmp", netip.IPv4Unspecified()
	if p.dst.Is6() {
		network, local = "ip6:ipv6-icmp", netip.IPv6Unspecified()
	}
	if p.Source.IsValid() {
		local = p.Source
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = p.setOptions(int(fd)) })
		return errors.Join(cerr, err)
	}}
	return from.Do(func() error {
		c, err := lc.ListenPacket(context.Background(), network, local.String())
		if err != nil {
			return err
		}
		p.conn = c.(*net.IPConn)
		return nil
	})
}

func (p *pinger) setOptions(fd int) error {
	if err := setDF(fd, p.dst.Is6(), p.DF); err != nil {
		return err
	}
	level, ttl, tos := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_TOS
	if p.dst.Is6() {
		level, ttl, tos = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_TCLASS
	}
	if p.TTL != 0 {
		if err := unix.SetsockoptInt(fd, level, ttl, p.TTL); err != nil {
			return os.NewSyscallError("setsockopt TTL "+strconv.Itoa(p.TTL), err)
		}
	}
	if p.TOS != 0 {
		if err := unix.SetsockoptInt(fd, level, tos, p.TOS); err != nil {
			return os.NewSyscallError("setsockopt TOS "+strconv.Itoa(p.TOS), err)
		}
	}
	if len(p.IPv4Options) > 0 {
		return os.NewSyscallError("setsockopt IP_OPTIONS", unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, string(p.IPv4Options)))
	}
	return nil
}

// setDF makes a socket send only unfragmented packets, and refuse packets that exceed
// the known path MTU; or it allows fragments.
func setDF(fd int, v6, df bool) error {
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT
	if v6 {
		level, option, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT
	}
	if df {
		value = unix.IP_PMTUDISC_DO // the same number in IPv6
		if v6 {
			if err := unix.SetsockoptInt(fd, level, unix.IPV6_DONTFRAG, 1); err != nil {
				return os.NewSyscallError("setsockopt IPV6_DONTFRAG", err)
			}
		}
	}
	return os.NewSyscallError("setsockopt MTU_DISCOVER", unix.SetsockoptInt(fd, level, option, value))
}

func (p *pinger) run(ctx context.Context) error {
	for seq := range p.Count {
		err := p.send(seq)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err != nil {
			p.res.Errors = append(p.res.Errors, err)
		} else {
			p.res.Sent++
		}
		last := seq == p.Count-1
		switch {
		case p.Interval == 0 && err == nil:
			err = p.receive(ctx, p.Timeout, func() bool { return p.found[seq] })
		case p.Interval > 0 && last:
			err = p.receive(ctx, p.Timeout, func() bool { return p.res.Received == p.res.Sent })
		case p.Interval > 0:
			err = p.receive(ctx, p.Interval, func() bool { return false })
		default:
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pinger) send(seq int) error {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: p.id, Seq: seq & 0xffff, Data: p.data(seq)}}
	if p.dst.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest // the kernel computes its checksum
	}
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	p.sent[seq] = time.Now()
	_, err = p.conn.WriteTo(b, &net.IPAddr{IP: p.dst.AsSlice()})
	return err
}

// data returns the data of request seq: pseudo-random bytes that no other process sends.
func (p *pinger) data(seq int) []byte { return noise(p.seed, uint32(seq), p.Size) }

// noise returns size pseudo-random bytes that depend on a seed and a number.
func noise(seed [32]byte, number uint32, size int) []byte {
	binary.BigEndian.PutUint32(seed[28:], number)
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
	return b
}

// receive reads answers until enough returns true or the time is over. It fails only if
// the connection does, or ctx ends.
func (p *pinger) receive(ctx context.Context, wait time.Duration, enough func() bool) error {
	if err := p.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for !enough() {
		if err := ctx.Err(); err != nil { // checked after the deadline is set, which may have overwritten that of ctx
			return err
		}
		n, from, err := p.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		addr, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		p.receivePacket(buf[:n], addr.Unmap(), time.Now())
	}
	return nil
}

// receivePacket handles one ICMP message.
func (p *pinger) receivePacket(b []byte, from netip.Addr, now time.Time) {
	if len(b) < echoLen {
		return
	}
	reply, echo := byte(ipv4.ICMPTypeEchoReply), byte(ipv4.ICMPTypeEcho)
	if p.dst.Is6() {
		reply, echo = byte(ipv6.ICMPTypeEchoReply), byte(ipv6.ICMPTypeEchoRequest)
	}
	if b[0] == reply {
		p.receiveReply(b, from, now)
		return
	}
	if q := quotedEcho(b[echoLen:], p.dst.Is6()); len(q) >= 6 && q[0] == echo && int(binary.BigEndian.Uint16(q[4:])) == p.id {
		e := ICMPError{From: from, Type: int(b[0]), Code: int(b[1])}
		switch {
		case p.dst.Is4() && b[0] == byte(ipv4.ICMPTypeDestinationUnreachable) && b[1] == 4: // fragmentation needed
			e.MTU = int(binary.BigEndian.Uint16(b[6:]))
		case p.dst.Is6() && b[0] == byte(ipv6.ICMPTypePacketTooBig):
			e.MTU = int(binary.BigEndian.Uint32(b[4:]))
		}
		p.res.ICMP = append(p.res.ICMP, e)
	}
}

func (p *pinger) receiveReply(b []byte, from netip.Addr, now time.Time) {
	seq := int(binary.BigEndian.Uint16(b[6:]))
	if int(binary.BigEndian.Uint16(b[4:])) != p.id || seq >= p.Count || p.sent[seq].IsZero() || from != p.dst.Unmap() {
		return
	}
	switch {
	case !bytes.Equal(b[echoLen:], p.data(seq)):
		p.res.Corrupt++
	case p.found[seq]:
		p.res.Duplicates++
	default:
		p.found[seq] = true
		p.res.Received++
		p.res.RTTs = append(p.res.RTTs, now.Sub(p.sent[seq]))
	}
}

// quotedEcho returns the ICMP message in a packet that an ICMP error quotes.
func quotedEcho(q []byte, v6 bool) []byte {
	switch {
	case v6 && len(q) >= 48 && q[6] == unix.IPPROTO_ICMPV6:
		return q[40:]
	case v6 && len(q) >= 56 && q[6] == unix.IPPROTO_FRAGMENT && q[40] == unix.IPPROTO_ICMPV6:
		return q[48:]
	case !v6 && len(q) >= 28 && q[9] == unix.IPPROTO_ICMP && len(q) >= int(q[0]&0x0f)*4:
		return q[int(q[0]&0x0f)*4:]
	}
	return nil
}
