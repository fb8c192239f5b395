package transport

import "sixfour/encap/header"

// besideSender sends packets of UDP through one sender, and those of another protocol through
// another.
type besideSender struct{ udp, raw Sender }

// Beside returns a sender for packets of UDP and of another protocol, both over IPv4. Closing
// it closes neither of the two.
func Beside(udp, raw Sender) Sender { return &besideSender{udp, raw} }

// of returns the sender for a packet.
func (s *besideSender) of(head []byte) Sender {
	if header.IPv4(head).Protocol() == header.UDP {
		return s.udp
	}
	return s.raw
}

// Send implements Sender.
func (s *besideSender) Send(pkts []Packet) (int, error) {
	for done := 0; done < len(pkts); {
		to, run := s.of(pkts[done].Head), 1
		for done+run < len(pkts) && s.of(pkts[done+run].Head) == to {
			run++
		}
		n, err := to.Send(pkts[done : done+run])
		if done += n; err != nil {
			return done, err
		}
	}
	return len(pkts), nil
}

// SendOne implements Sender.
func (s *besideSender) SendOne(pkt []byte) error { return s.of(pkt).SendOne(pkt) }

// Close does nothing: whoever has opened the senders closes them.
func (s *besideSender) Close() error { return nil }
