package broker

import (
	"net/netip"
	"testing"

	wiretic "sixfour/encap/tic"
	"sixfour/internal/config"
)

// TIC says where tunnels end, which it can for listeners at IPv4 addresses and at the ports
// of their protocols.
func TestEndsForTIC(t *testing.T) {
	at := func(protocol, address string, port uint16) config.BrokerListener {
		return config.BrokerListener{Protocol: protocol, Address: netip.MustParseAddr(address), Port: port}
	}
	for _, c := range []struct {
		want      []config.BrokerListener
		kind, end string // "": none; "any": where the client has connected
	}{
		{nil, wiretic.TypeAYIYA, ""},
		{[]config.BrokerListener{at("tic", "192.0.2.1", 3874)}, wiretic.TypeAYIYA, ""},
		{[]config.BrokerListener{at("ayiya", "192.0.2.1", 8374)}, wiretic.TypeAYIYA, ""},
		{[]config.BrokerListener{at("ayiya", "2001:db8::1", 5072)}, wiretic.TypeAYIYA, ""},
		{[]config.BrokerListener{at("ayiya", "192.0.2.1", 5072)}, wiretic.TypeAYIYA, "192.0.2.1"},
		{[]config.BrokerListener{at("ayiya", "192.0.2.1", 5072)}, wiretic.TypeHeartbeat, ""},
		{[]config.BrokerListener{at("ayiya", "192.0.2.1", 5072)}, wiretic.Type6in4, ""},
		{[]config.BrokerListener{at("ayiya", "::", 5072)}, wiretic.TypeAYIYA, "any"},
		{[]config.BrokerListener{at("ayiya", "0.0.0.0", 5072), at("heartbeat", "192.0.2.2", 3740)}, wiretic.TypeAYIYA, "any"},
		{[]config.BrokerListener{at("ayiya", "0.0.0.0", 5072), at("heartbeat", "192.0.2.2", 3740)}, wiretic.TypeHeartbeat, "192.0.2.2"},
	} {
		l := &listeners{want: c.want}
		end, ok := l.end(c.kind)
		got := ""
		switch {
		case ok && end.IsValid():
			got = end.String()
		case ok:
			got = "any"
		}
		if got != c.end {
			t.Errorf("%s with %+v: %q, want %q", c.kind, c.want, got, c.end)
		}
	}
}
