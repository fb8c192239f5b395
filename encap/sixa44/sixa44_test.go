package sixa44

import (
	"bytes"
	"net/netip"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/vectors"
)

func TestVectors(t *testing.T) {
	v := vectors.Read(t)
	site := Prefix{0x20010db80044, header.MappingOf(netip.MustParseAddrPort("198.51.100.2:40123"))}
	for name, want := range map[string]Bubble{
		"6A44-1": {ID: 0x1122334455667788},
		"6A44-2": {site, 0x1122334455667788},
		"6A44-5": {Prefix: site},
	} {
		b := v[name][28:]
		if m, ok := ParseBubble(b); !ok || m != want {
			t.Errorf("%s: %+v, %v", name, m, ok)
		}
		if got := AppendBubble(nil, want); !bytes.Equal(got, b) {
			t.Errorf("%s: %x", name, got)
		}
		for n := range b {
			if _, ok := ParseBubble(b[:n]); ok {
				t.Errorf("%s, %d bytes", name, n)
			}
		}
	}
	if _, ok := ParseBubble(make([]byte, header.IPv6Len)); ok {
		t.Error("an IPv6 packet is a bubble")
	}
	a := site.Address(0xc0a8010a)
	if got := a.Addr(); got != netip.MustParseAddr("2001:db8:44:c633:6402:9cbb:c0a8:10a") {
		t.Errorf("%v", got)
	}
	if p, inside := Of(a); p != site || inside != 0xc0a8010a {
		t.Errorf("%+v, %x", p, inside)
	}
}

func FuzzBubble(f *testing.F) {
	f.Add(AppendBubble(nil, Bubble{ID: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := ParseBubble(b); ok && !bytes.Equal(AppendBubble(nil, m), b[:bubbleLen]) {
			t.Errorf("%x: %+v", b, m)
		}
	})
}
