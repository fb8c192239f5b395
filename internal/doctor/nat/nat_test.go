package nat

import (
	"net/netip"
	"strings"
	"testing"
)

// Conclusions from the answers of a server.
func TestClassify(t *testing.T) {
	const local = "10.0.0.5:40000"
	for _, c := range []struct {
		name                 string
		first, second        string
		fromAny, fromAddress bool
		mapping              Mapping
		filtering            Filtering
		says                 []string
		teredo, udp          string
	}{
		{"no NAT", local, local, true, false, NoMapping, AnyHost, []string{"no NAT: 10.0.0.5", "the path lets packets of all hosts in"}, "all clients", "either end"},
		{"a firewall", local, local, false, false, NoMapping, SamePort, []string{"no NAT", "the path lets in only packets of addresses and ports"}, "all clients", "must let its port in"},
		{"full cone", "203.0.113.5:40000", "203.0.113.5:40000", true, false, Independent, AnyHost, []string{"a full cone NAT at 203.0.113.5", "ports are kept"}, "all clients", "forward a port"},
		{"restricted", "203.0.113.5:1", "203.0.113.5:1", false, true, Independent, SameAddress, []string{"a restricted cone NAT", "ports are changed"}, "all clients", "forward a port"},
		{"port-restricted", "203.0.113.5:1", "203.0.113.5:1", false, false, Independent, SamePort, []string{"a port-restricted cone NAT"}, "all clients but those behind symmetric NATs", "forward a port"},
		{"symmetric", "203.0.113.5:1", "203.0.113.5:1001", false, false, Dependent, SamePort, []string{"a symmetric NAT at 203.0.113.5", "ports are changed, and"}, "does not reach clients behind port-restricted", "forward a port"},
		{"symmetric, sequential", "203.0.113.5:1", "203.0.113.5:2", false, false, Dependent, SamePort, []string{"one after the other"}, "does not reach", "forward a port"},
		{"several addresses", "203.0.113.5:1", "203.0.113.6:1", false, false, Dependent, SamePort, []string{"a symmetric NAT at 203.0.113.5 and 203.0.113.6"}, "does not reach", "forward a port"},
	} {
		b := Behaviour{Local: netip.MustParseAddrPort(local), Mapped: [2]netip.AddrPort{netip.MustParseAddrPort(c.first), netip.MustParseAddrPort(c.second)}}
		b.classify(c.fromAny, c.fromAddress)
		if b.Mapping != c.mapping || b.Filtering != c.filtering {
			t.Errorf("%s: mapping %v, filtering %v", c.name, b.Mapping, b.Filtering)
		}
		for _, text := range c.says {
			if !strings.Contains(b.String(), text) {
				t.Errorf("%s: %v, without %q", c.name, &b, text)
			}
		}
		if how := b.Teredo(); !how.Works || !strings.Contains(how.How, c.teredo) {
			t.Errorf("%s: teredo: %+v", c.name, how)
		}
		if how := b.UDP(); !how.Works || !strings.Contains(how.How, c.udp) {
			t.Errorf("%s: UDP: %+v", c.name, how)
		}
		if direct := strings.Contains(b.Mode6bed4().How, "directly to peers"); direct != (c.mapping != Dependent) {
			t.Errorf("%s: 6bed4: %+v", c.name, b.Mode6bed4())
		}
	}
}
