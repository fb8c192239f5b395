package netcfg

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig/rigtest"
	"sixfour/internal/rtnl"
)

// FuzzDevice parses possible answers of the kernel about an interface.
func FuzzDevice(f *testing.F) {
	c, err := rtnl.Dial()
	rigtest.Must(f, err)
	defer c.Close()
	c.Exchange(1, func(b *rtnl.Builder, _ int) {
		b.Begin(unix.RTM_GETLINK, 0, append(make([]byte, 4), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
	}, func(_ int, message []byte, err error) {
		rigtest.Must(f, err)
		f.Add(bytes.Clone(message))
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		given := bytes.Clone(b)
		parseDevice(b, nil)
		if !bytes.Equal(given, b) {
			t.Error("changed")
		}
	})
}

// TestParseShortDevice: a truncated answer is an error of its own request only.
func TestParseShortDevice(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 7), append(make([]byte, unix.SizeofIfInfomsg), 9, 0, 4, 0)} {
		if d := parseDevice(b, nil); d.err == nil {
			t.Errorf("interface of % x: %+v", b, d)
		}
	}
}
