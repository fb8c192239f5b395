package rtnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig/rigtest"
)

// FuzzAnswers parses possible answers of the kernel.
func FuzzAnswers(f *testing.F) {
	c, err := Dial()
	rigtest.Must(f, err)
	defer c.Close()
	// Real answers, each with its header.
	c.Exchange(3, func(b *Builder, i int) {
		switch i {
		case 0:
			b.GetRoute(RouteRequest{Remote: netip.MustParseAddr("127.0.0.1"), Table: true})
		case 1:
			b.Begin(unix.RTM_GETLINK, 0, append(make([]byte, 4), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
		default:
			b.Begin(unix.RTM_GETROUTE, 0, []byte{unix.AF_INET, 32, 0, 0})
		}
	}, func(_ int, message []byte, _ error) {
		var b Builder
		b.Begin(0, 0, message)
		b.finish(0, 1)
		f.Add([]byte(b))
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		given := bytes.Clone(b)
		_ = each(b, func(m message) {
			ParseRoute(m.body, m.err)
		})
		if !bytes.Equal(given, b) {
			t.Error("changed")
		}
	})
}

func TestEach(t *testing.T) {
	header := func(length uint32, kind uint16, seq uint32) []byte {
		b := binary.NativeEndian.AppendUint32(nil, length)
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = append(b, 0, 0)
		return append(binary.NativeEndian.AppendUint32(b, seq), 0, 0, 0, 0)
	}
	refused := int32(-int(unix.EPERM))
	for _, c := range []struct {
		name string
		b    []byte
		want []message
		err  error
	}{
		{"nothing", nil, nil, nil},
		{"two, the first padded", bytes.Join([][]byte{header(17, 24, 1), {7, 0, 0, 0}, header(18, 24, 2), {8, 9}}, nil), []message{{1, []byte{7}, nil}, {2, []byte{8, 9}, nil}}, nil},
		{"acknowledged", append(header(20, unix.NLMSG_ERROR, 3), 0, 0, 0, 0), []message{{3, nil, nil}}, nil},
		{"refused", binary.NativeEndian.AppendUint32(header(20, unix.NLMSG_ERROR, 3), uint32(refused)), []message{{3, nil, unix.EPERM}}, nil},
		{"half a header", header(16, 24, 1)[:15], nil, errShort},
		{"a length that is less than the header's", header(15, 24, 1), nil, errShort},
		{"a length of nothing", header(0, 24, 1), nil, errShort},
		{"a length that is too much", header(17, 24, 1), nil, errShort},
		{"an error without its number", append(header(19, unix.NLMSG_ERROR, 3), 0, 0, 0), nil, errShort},
	} {
		var got []message
		err := each(c.b, func(m message) { got = append(got, m) })
		if !errors.Is(err, c.err) || len(got) != len(c.want) {
			t.Errorf("%s: %v, %v, want %v, %v", c.name, got, err, c.want, c.err)
			continue
		}
		for i, m := range got {
			if w := c.want[i]; m.seq != w.seq || !bytes.Equal(m.body, w.body) || !errors.Is(m.err, w.err) {
				t.Errorf("%s: %v, want %v", c.name, m, w)
			}
		}
	}
}

// TestParseShort: a truncated answer is an error of its own request only.
func TestParseShort(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 7), append(make([]byte, unix.SizeofRtMsg), 9, 0, 4, 0)} {
		if f := ParseRoute(b, nil); f.Err == nil {
			t.Errorf("route of % x: %+v", b, f)
		}
	}
}
