package encap_test

import (
	"encoding/binary"
	"encoding/hex"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// embedded is a resolver for tests: the outer address stands behind 64:ff9b:: in the
// inner one, and a source must have come from what it embeds.
type embedded struct{}

func (embedded) To(ip header.IPv6) (uint32, drop.Reason) {
	if binary.BigEndian.Uint32(ip.Dest()) != 0x0064ff9b {
		return 0, drop.NoPeer
	}
	return binary.BigEndian.Uint32(ip.Dest()[4:]), drop.None
}

func (embedded) From(outer header.IPv4, inner header.IPv6) drop.Reason {
	if binary.BigEndian.Uint32(inner.Source()) != 0x0064ff9b || binary.BigEndian.Uint32(inner.Source()[4:]) != binary.BigEndian.Uint32(outer.Source()) {
		return drop.Spoof
	}
	return drop.None
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
