package agent

import (
	"net/netip"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// What has no room in the outbox is counted: as the reason for which a received packet is not
// answered, or as lost.
func TestOutbox(t *testing.T) {
	b, err := NewBase("test", resolve.Site{Local: netip.MustParseAddr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	to := header.Mapping{Addr: 0xcb007105, Port: 1}
	refused := 0
	for range maxOut + 44 {
		b.Send(to, nil)
		switch b.Refused() {
		case drop.None:
		case drop.Limited:
			refused++
		default:
			t.Fatal(b.Refused())
		}
	}
	send, lost := b.Take()
	if len(send) != maxOut || lost != 0 || refused != 44 {
		t.Errorf("%d sent, %d refused, %d lost", len(send), refused, lost)
	}
	for range maxOut + 7 {
		b.Send(to, nil)
	}
	if send, lost := b.Take(); len(send) != maxOut || lost != 7 {
		t.Errorf("%d sent, %d lost", len(send), lost)
	}
	b.Why = drop.Martian
	if !b.Room(maxOut) || b.Room(maxOut+1) || b.Refused() != drop.Martian {
		t.Error("the outbox is not empty, or the reason is lost")
	}
}
