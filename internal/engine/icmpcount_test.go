package engine

import "testing"

func TestICMPCounts(t *testing.T) {
	var c icmpCounts
	for _, m := range []struct {
		version   int
		typ, code byte
	}{
		{4, 3, 1}, {4, 3, 4}, {4, 11, 0}, {4, 12, 0}, {4, 4, 0}, // RFC 792, and source quench
		{6, 1, 4}, {6, 2, 0}, {6, 3, 1}, {6, 4, 2}, {6, 100, 0}, {6, 0, 0}, // RFC 4443
	} {
		c.add(m.version, m.typ, m.code)
	}
	by := c.counts()
	if want := (ICMPTypes{2, 2, 2, 2, 3}); by != want || by.total() != 11 {
		t.Errorf("%+v", by)
	}
	by.merge(c.counts())
	if want := (ICMPTypes{4, 4, 4, 4, 6}); by != want {
		t.Errorf("%+v", by)
	}
}
