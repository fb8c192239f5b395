package prober

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/config"
	"sixfour/internal/netns"
	"sixfour/internal/probe"
)

// Pinger sends echo requests as any program on this host does: the kernel routes them,
// and the packet filter sees them and the answers.
type Pinger struct {
	pair config.Pair
	conn *net.IPConn
	id   probe.Identity
}

// NewPinger opens the socket in a network namespace, given as for netns.In.
func NewPinger(namespace string, pair config.Pair, id probe.Identity) (*Pinger, error) {
	network := "ip4:icmp"
	if pair.Local.Is6() {
		network = "ip6:ipv6-icmp"
	}
	p := &Pinger{pair: pair, id: id}
	err := netns.In(namespace, func() (err error) {
		p.conn, err = net.ListenIP(network, &net.IPAddr{IP: pair.Local.AsSlice()})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a socket for pings from %v: %w", pair.Local, err)
	}
	return p, nil
}

// Ping sends one echo request, and waits for its answer or an ICMP error about it.
func (p *Pinger) Ping(ctx context.Context, seq uint16) (o Outcome) {
	n := IPLen(p.pair.Local)
	packet := make([]byte, n+probe.Len)
	p.id.Fill(packet, p.pair.Local, p.pair.Remote, seq)
	sent := time.Now()
	if _, err := p.conn.WriteToIP(packet[n:], &net.IPAddr{IP: p.pair.Remote.AsSlice()}); err != nil {
		return Outcome{Err: err}
	}
	_ = p.conn.SetReadDeadline(sent.Add(AnswerTimeout))
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 2048)
	for {
		n, from, err := p.conn.ReadFromIP(buf)
		if err != nil {
			return o
		}
		if r, ok := p.read(buf[:n], seq); ok {
			r.RTT = time.Since(sent)
			r.From, _ = netip.AddrFromSlice(from.IP)
			r.From = r.From.Unmap()
			if o = (Outcome{Reply: r, Replied: true}); r.Answer {
				return o
			}
			_ = p.conn.SetReadDeadline(time.Now().Add(grace))
		}
	}
}

// read returns what an ICMP message, without IP header, says about the request with a
// sequence number; if ok is false, nothing.
func (p *Pinger) read(m []byte, seq uint16) (r Reply, ok bool) {
	answer, version := byte(icmp.EchoReply4), 4
	if p.pair.Local.Is6() {
		answer, version = icmp.EchoReply6, 6
	}
	if p.id.IsReply(m, answer) {
		return Reply{Answer: true}, binary.BigEndian.Uint16(m[probe.SeqAt:]) == seq
	}
	const quoteAt = 8 // RFC 792; RFC 4443 section 3
	if len(m) < quoteAt {
		return r, false
	}
	quote := m[quoteAt:]
	head := header.IPv6Len
	if version == 4 && len(quote) >= header.IPv4Len {
		head = header.IPv4(quote).HeaderLen()
	}
	if len(quote) < head+probe.CookieAt || header.Version(quote) != version || destination(quote) != p.pair.Remote {
		return r, false
	}
	about := quote[head:]
	if binary.BigEndian.Uint16(about[probe.IDAt:]) != p.id.ID || binary.BigEndian.Uint16(about[probe.SeqAt:]) != seq {
		return r, false
	}
	return Reply{ICMP: icmp.Error{Version: version, Type: m[0], Code: m[1], Arg: binary.BigEndian.Uint32(m[4:])}}, true
}

// Close closes the socket.
func (p *Pinger) Close() { p.conn.Close() }

// Mark makes the kernel route the requests by a mark.
func (p *Pinger) Mark(mark uint32) error {
	if mark == 0 {
		return nil
	}
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	}); e != nil {
		return e
	}
	return err
}
