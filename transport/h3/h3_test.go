package h3

import (
	"bufio"
	"bytes"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name               string
		b                  []byte
		ok                 bool
		connect, datagrams bool
	}{
		{"nothing in it", []byte{4, 0}, true, false, false},
		{"both", []byte{4, 4, 8, 1, 0x33, 1}, true, true, true},
		{"both, refused", []byte{4, 4, 8, 0, 0x33, 0}, true, false, false},
		{"others, in longer varints", []byte{0x40, 4, 0x40, 9, 6, 0x80, 0, 0x10, 0, 0x40, 0x33, 0x40, 1}, true, false, true},
		{"others, and half a setting", []byte{4, 6, 0x40, 0x40, 7, 8, 1, 0}, false, false, false},
		{"another frame", []byte{7, 1, 0}, false, false, false},
		{"too long", []byte{4, 0x80, 0x10, 0, 0}, false, false, false},
		{"without end", []byte{4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, false, false, false},
		{"truncated", []byte{4, 4, 8, 1}, false, false, false},
		{"half a setting", []byte{4, 1, 8}, false, false, false},
		{"half a number", []byte{4, 2, 8, 0x40}, false, false, false},
		{"empty", nil, false, false, false},
	} {
		var s Settings
		err := s.parse(bufio.NewReader(bytes.NewReader(c.b)))
		if (err == nil) != c.ok || c.ok && (s.Connect != c.connect || s.Datagrams != c.datagrams) {
			t.Errorf("%s: connect %v, datagrams %v, %v", c.name, s.Connect, s.Datagrams, err)
		}
	}
}
