package queue

import (
	"net"
	"sync"
	"time"

	"sixfour/transport"
)

// sender is a sender of a port whose packets wait in queues.
type sender struct {
	port   <-chan struct{} // closed when the port is
	send   func(head, body []byte, now time.Time) error
	closed sync.Once
	done   chan struct{}
}

// NewSender returns a sender of a port that is closed when the channel is. Send is called for
// each packet, also concurrently, and must not wait.
func NewSender(port <-chan struct{}, send func(head, body []byte, now time.Time) error) transport.Sender {
	return &sender{port: port, send: send, done: make(chan struct{})}
}

// Send implements transport.Sender.
func (s *sender) Send(pkts []transport.Packet) (int, error) {
	if err := s.usable(); err != nil {
		return 0, err
	}
	now := time.Now()
	for i := range pkts {
		if err := s.send(pkts[i].Head, pkts[i].Body, now); err != nil {
			return i, err
		}
	}
	return len(pkts), nil
}

// SendOne implements transport.Sender.
func (s *sender) SendOne(pkt []byte) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.send(pkt, nil, time.Now())
}

// usable returns net.ErrClosed after Close.
func (s *sender) usable() error {
	select {
	case <-s.done:
	case <-s.port:
	default:
		return nil
	}
	return net.ErrClosed
}

// Close implements transport.Sender.
func (s *sender) Close() error {
	s.closed.Do(func() { close(s.done) })
	return nil
}
