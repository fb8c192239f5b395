package icmpreply

import (
	"testing"

	"sixfour/internal/api"
)

func TestICMPCounts(t *testing.T) {
	var c Counts
	for _, m := range []struct {
		version   int
		typ, code byte
	}{
		{4, 3, 1}, {4, 3, 4}, {4, 11, 0}, {4, 12, 0}, {4, 4, 0}, // RFC 792, and source quench
		{6, 1, 4}, {6, 2, 0}, {6, 3, 1}, {6, 4, 2}, {6, 100, 0}, {6, 0, 0}, // RFC 4443
	} {
		c.Add(m.version, m.typ, m.code)
	}
	by := c.Types()
	if want := (api.ICMPTypes{Unreachable: 2, TooBig: 2, TimeExceeded: 2, Parameter: 2, Other: 3}); by != want || by.Total() != 11 {
		t.Errorf("%+v", by)
	}
	by.Add(c.Types())
	if want := (api.ICMPTypes{Unreachable: 4, TooBig: 4, TimeExceeded: 4, Parameter: 4, Other: 6}); by != want {
		t.Errorf("%+v", by)
	}
}
