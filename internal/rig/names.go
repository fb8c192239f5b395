package rig

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// Names is a DNS server at 127.0.0.1:53 of a namespace, for names that a test defines.
// Resolv is the /etc/resolv.conf for it.
type Names struct {
	conn *net.UDPConn

	mu    sync.Mutex
	names map[string][]netip.Addr // with a dot at the end
}

// Resolv is the content of a resolv.conf with the server.
const Resolv = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"

// ServeNames starts a server without any names. Close it after use.
func (n *Namespace) ServeNames() (*Names, error) {
	conn, err := n.ListenUDP(netip.MustParseAddrPort("127.0.0.1:53"))
	if err != nil {
		return nil, err
	}
	s := &Names{conn: conn, names: make(map[string][]netip.Addr)}
	go s.serve()
	return s, nil
}

// Set sets a name's addresses, of both IP versions, and replaces earlier ones.
func (s *Names) Set(name string, addrs ...netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[name+"."] = addrs
}

// Close ends the server.
func (s *Names) Close() error { return s.conn.Close() }

func (s *Names) serve() {
	buf := make([]byte, 512)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if answer := s.answer(buf[:n]); answer != nil {
			_, _ = s.conn.WriteToUDPAddrPort(answer, from) // a client without an answer asks again
		}
	}
}

// answer returns the answer to a query, or nil if query is not one.
func (s *Names) answer(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || m.Response || len(m.Questions) != 1 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := m.Questions[0]
	addrs, known := s.names[q.Name.String()]
	m.Response, m.Authoritative, m.RecursionAvailable, m.Additionals = true, true, true, nil
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 1}
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}
