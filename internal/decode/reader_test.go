package decode_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"sixfour/internal/decode"
	"sixfour/internal/pcapng"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// old returns a pcap file with one packet of 4 bytes.
func old(order binary.AppendByteOrder, magic uint32) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(b, 2)
	b = order.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = order.AppendUint32(b, 65535)
	b = order.AppendUint32(b, pcapng.LinkRaw)
	for _, v := range []uint32{uint32(at.Unix()), 123456, 4, 60} {
		b = order.AppendUint32(b, v)
	}
	return append(b, 0x45, 1, 2, 3)
}

func TestPcap(t *testing.T) {
	for _, c := range []struct {
		order binary.AppendByteOrder
		magic uint32
		nanos int
	}{
		{binary.LittleEndian, 0xa1b2c3d4, 123456000}, {binary.BigEndian, 0xa1b2c3d4, 123456000},
		{binary.LittleEndian, 0xa1b23c4d, 123456}, {binary.BigEndian, 0xa1b23c4d, 123456},
	} {
		r, err := decode.NewReader(bytes.NewReader(old(c.order, c.magic)))
		if err != nil {
			t.Fatal(err)
		}
		p, i, err := r.Next()
		if err != nil || i.Link != pcapng.LinkRaw || p.Length != 60 || !bytes.Equal(p.Data, []byte{0x45, 1, 2, 3}) || p.Time.Unix() != at.Unix() || p.Time.Nanosecond() != c.nanos {
			t.Errorf("%v %x: %+v, %+v, %v", c.order, c.magic, p, i, err)
		}
		if _, _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
}

// ng returns a file as other programs write it: blocks of 32-bit words, in a byte order.
func ng(order binary.AppendByteOrder, blocks ...[]any) (b []byte) {
	for _, words := range blocks {
		var body []byte
		for _, w := range words[1:] {
			switch w := w.(type) {
			case int:
				body = order.AppendUint32(body, uint32(w))
			case uint16:
				body = order.AppendUint16(body, w)
			case string:
				body = append(body, w...)
			}
		}
		b = order.AppendUint32(b, uint32(words[0].(int)))
		b = order.AppendUint32(b, uint32(len(body)+12))
		b = append(b, body...)
		b = order.AppendUint32(b, uint32(len(body)+12))
	}
	return b
}

var (
	section  = []any{pcapng.BlockHeader, 0x1a2b3c4d, uint16(1), uint16(0), -1, -1}
	ethernet = []any{pcapng.BlockInterface, uint16(1), uint16(0), 0}
)

// with returns an interface with a resolution and an offset in seconds.
func with(resolution string, offset int) []any {
	return []any{pcapng.BlockInterface, uint16(101), uint16(0), 3, uint16(9), uint16(1), resolution + "\x00\x00\x00", uint16(14), uint16(8), 0, offset}
}

// TestOthers reads files of other programs: byte orders, units of time, unknown blocks.
func TestOthers(t *testing.T) {
	second := time.Unix(1, 0).UTC()
	for _, c := range []struct {
		name string
		file []byte
		want time.Time
		len  int
	}{
		{"microseconds", ng(binary.BigEndian, section, ethernet, []any{6, 0, 0, 1000000, 4, 4, "abcd"}), second, 4},
		{"unknown blocks", ng(binary.BigEndian, section, []any{0x0bad, 1, 2, 3}, ethernet, []any{10}, []any{6, 0, 0, 1000000, 2, 4, "ab\x00\x00"}), second, 2},
		{"2 to the -10", ng(binary.BigEndian, section, with("\x8a", 0), []any{6, 0, 0, 1536, 4, 4, "abcd"}), time.Unix(1, 500000000).UTC(), 4},
		{"milliseconds, offset", ng(binary.BigEndian, section, with("\x03", 1), []any{6, 0, 0, 0, 4, 4, "abcd"}), second, 4},
		{"picoseconds", ng(binary.BigEndian, section, with("\x0c", 0), []any{6, 0, 232, -0x2b5af000, 4, 4, "abcd"}), second, 4},
		{"simple", ng(binary.BigEndian, section, with("\x09", 0), []any{3, 4, "abc\x00"}), time.Time{}, 3},
		{"a second section", ng(binary.BigEndian, section, section, ethernet, []any{6, 0, 0, 1000000, 4, 4, "abcd"}), second, 4},
	} {
		r, err := decode.NewReader(bytes.NewReader(c.file))
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := r.Next()
		if err != nil || len(p.Data) != c.len || !c.want.IsZero() && p.Time.Sub(c.want).Abs() >= time.Microsecond {
			t.Errorf("%s: %+v, %v, want %v", c.name, p, err, c.want)
		}
	}
}

// TestTimes: times are exact to the nanosecond in whatever units an interface has.
func TestTimes(t *testing.T) {
	for _, c := range []struct {
		name       string
		resolution string
		offset     int
		units      uint64
		sec, ns    int64
	}{
		{"10^0", "\x00", 0, 1772366400, 1772366400, 0},
		{"10^-1", "\x01", 0, 19, 1, 900000000},
		{"10^-3", "\x03", 0, 1772366400123, 1772366400, 123000000},
		{"10^-6", "\x06", 0, 1772366400123456, 1772366400, 123456000},
		{"10^-9", "\x09", 0, 1772366400123456789, 1772366400, 123456789},
		{"10^-9 and an offset", "\x09", 1772366400, 123456789, 1772366400, 123456789},
		{"10^-12", "\x0c", 0, 1900000000999, 1, 900000000},
		{"10^-19", "\x13", 0, 1<<64 - 1, 1, 844674407},
		{"10^-20", "\x14", 0, 1<<64 - 1, 0, 184467440},
		{"10^-40", "\x28", 0, 1<<64 - 1, 0, 0},
		{"2^0", "\x80", 0, 1772366400, 1772366400, 0},
		{"2^-10", "\x8a", 0, 1536, 1, 500000000},
		{"2^-30", "\x9e", 0, 1<<30 + 966367642, 1, 900000000},
		{"2^-30 and an offset", "\x9e", 1772366400, 1<<30 + 966367642, 1772366401, 900000000},
		{"2^-32", "\xa0", 0, 1772366400<<32 + 1<<31 + 1<<30, 1772366400, 750000000},
		{"2^-63", "\xbf", 0, 1<<64 - 1, 1, 999999999},
	} {
		for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			offset := []any{0, c.offset}
			if order == binary.AppendByteOrder(binary.LittleEndian) {
				offset = []any{c.offset, 0}
			}
			iface := append([]any{pcapng.BlockInterface, uint16(101), uint16(0), 3, uint16(9), uint16(1), c.resolution + "\x00\x00\x00", uint16(14), uint16(8)}, offset...)
			r, err := decode.NewReader(bytes.NewReader(ng(order, section, ethernet, iface,
				[]any{6, 1, int(c.units >> 32), int(c.units & (1<<32 - 1)), 4, 4, "abcd"}, []any{6, 0, 0, 5, 4, 4, "abcd"})))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []time.Time{time.Unix(c.sec, c.ns), time.UnixMicro(5)} {
				if p, _, err := r.Next(); err != nil || !p.Time.Equal(want) {
					t.Errorf("%s, %v: %v, %v, want %v", c.name, order, p.Time, err, want.UTC())
				}
			}
		}
	}
}

// TestBigEndian: the options of packets in a big-endian file.
func TestBigEndian(t *testing.T) {
	r, err := decode.NewReader(bytes.NewReader(ng(binary.BigEndian, section, ethernet,
		[]any{6, 0, 0, 0, 4, 4, "abcd", uint16(2), uint16(4), 2, uint16(4), uint16(8), 0, 3, uint16(5), uint16(8), 1, 7, 0})))
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := r.Next()
	if err != nil || p.Direction != pcapng.Outbound || p.Dropped != 3 || p.ID != 1<<32+7 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestWrong: an error in a file is reported with its offset in bytes.
func TestWrong(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "empty"},
		{"text", []byte("root:x:0:0:root:/root:/bin/sh\n"), "begins with 72 6f 6f 74"},
		{"short pcap", old(le, 0xa1b2c3d4)[:20], "shorter than the header"},
		{"cut pcap record", old(le, 0xa1b2c3d4)[:30], "packet at byte 24: the file is cut off"},
		{"cut pcap packet", old(le, 0xa1b2c3d4)[:42], "packet at byte 24: the file is cut off"},
		{"huge pcap packet", append(old(le, 0xa1b2c3d4)[:32], 0xff, 0xff, 0xff, 0x7f, 1, 1, 1, 1), "packet at byte 24: capture length exceeds snap length: 2147483647"},
		{"cut", file(t)[:30], "block at byte 0: the file is cut off"},
		{"magic", append([]byte{0xa, 0xd, 0xd, 0xa, 28, 0, 0, 0, 1, 2, 3, 4}, make([]byte, 20)...), "without its magic number"},
		{"length", ng(le, section, []any{6})[:28+4], "block at byte 28: the file is cut off"},
		{"odd length", append(ng(le, section), 6, 0, 0, 0, 13, 0, 0, 0), "block at byte 28: a length of 13"},
		{"huge length", append(ng(le, section), 6, 0, 0, 0, 0, 0, 0, 0x70), "block at byte 28: a length of 1879048192"},
		{"two lengths", append(ng(le, section), 6, 0, 0, 0, 12, 0, 0, 0, 16, 0, 0, 0), "12 at its beginning and 16 at its end"},
		{"no interface", ng(le, section, []any{6, 0, 0, 0, 0, 0}), "interface 0, which is not described"},
		{"resolution", ng(le, section, []any{1, uint16(101), uint16(0), 3, uint16(9), uint16(1), "\xff\x00\x00\x00"}, []any{6, 0, 0, 0, 0, 0}), "2^-127 is too high"},
		{"short interface", ng(le, section, []any{1}), "an interface of 0 bytes"},
		{"short packet", ng(le, section, ethernet, []any{6, 0}), "block at byte 48"},
		{"long packet", ng(le, section, ethernet, []any{6, 0, 0, 0, 5, 5, "abcd"}), "block at byte 48: 5 bytes of a packet"},
		{"huge packet", ng(le, section, ethernet, []any{6, 0, 0, 0, -1, 5, "abcd"}), "4294967295 bytes of a packet"},
		{"long option", ng(le, section, ethernet, []any{6, 0, 0, 0, 0, 0, uint16(1), uint16(5), "abcd"}), "an option is longer than the block"},
		{"simple without an interface", ng(le, section, []any{3, 0}), "0 interfaces"},
		{"long simple", ng(le, section, ethernet, []any{3, 5, "abcd"}), "5 bytes of a packet"},
	} {
		r, err := decode.NewReader(bytes.NewReader(c.file))
		for err == nil {
			_, _, err = r.Next()
		}
		if errors.Is(err, io.EOF) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	many := ng(le, section)
	for range 1<<12 + 1 {
		many = append(many, ng(le, ethernet)...)
	}
	r, err := decode.NewReader(bytes.NewReader(many))
	if err == nil {
		_, _, err = r.Next()
	}
	if err == nil || !strings.Contains(err.Error(), "more than 4096 interfaces") {
		t.Error(err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(file(f))
	f.Add(old(binary.BigEndian, 0xa1b23c4d))
	f.Add(ng(binary.BigEndian, section, with("\x8a", 0), []any{6, 0, 0, 1536, 4, 4, "abcd"}, []any{3, 4, "abc\x00"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decode.NewReader(bytes.NewReader(b))
		for n := 0; err == nil; n++ {
			var p pcapng.Packet
			if p, _, err = r.Next(); err == nil && (len(p.Data) > len(b) || p.Length < 0 || n > len(b)) {
				t.Fatalf("packet %d is %+v", n, p)
			}
		}
	})
}
