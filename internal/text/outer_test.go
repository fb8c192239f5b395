package text

import (
	"net/netip"
	"testing"
)

func TestOuter(t *testing.T) {
	for at, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7:1234", "192.0.2.7:0": "192.0.2.7", "[2001:db8::1]:5072": "[2001:db8::1]:5072", "[2001:db8::1]:0": "2001:db8::1",
	} {
		if got := Outer(netip.MustParseAddrPort(at)); got != want {
			t.Errorf("%s is shown as %s, want %s", at, got, want)
		}
	}
}
