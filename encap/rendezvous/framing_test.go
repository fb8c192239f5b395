package rendezvous_test

import (
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/rendezvous"
)

// No framing over UDP takes a message for a tunnel packet.
func TestMessageIsNoTunnelPacket(t *testing.T) {
	key, err := rendezvous.NewKey([]byte("sixteen bytes and more"))
	if err != nil {
		t.Fatal(err)
	}
	hello, _ := rendezvous.NewCaller(key, time.Minute).Next(time.Now())
	gre := framing.GRE{}
	for name, f := range map[string]framing.Framing{
		"fou": framing.FOU{}, "gue": framing.GUE{}, "gre in fou": framing.FOU{Inside: gre}, "gre in gue": framing.GUE{Inside: gre},
	} {
		if _, _, why := f.Codec(new(framing.State)).(framing.DatagramCodec).OpenDatagram(hello, header.Outer{}); why == drop.None {
			t.Errorf("%s carries %x", name, hello[:4])
		}
	}
}
