package pcapng_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"sixfour/internal/decode"
	"sixfour/internal/pcapng"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// file returns a file with everything that can be written.
func file() []byte {
	b := pcapng.AppendHeader(nil, "a program 1.0")
	b = pcapng.AppendInterface(b, pcapng.Interface{Name: "six0 inner", Description: "inside", Link: pcapng.LinkRaw, Snap: 100, Filter: "tcp port 80"})
	b = pcapng.AppendInterface(b, pcapng.Interface{Name: "six0 outer", Link: pcapng.LinkRaw})
	for _, p := range written {
		b = pcapng.AppendPacket(b, &p)
	}
	return pcapng.AppendStatistics(b, &pcapng.Statistics{Interface: 1, Time: at, Start: at, Stop: at, Received: 2, Lost: 1 << 40, Comment: "the tunnel was removed"})
}

var written = []pcapng.Packet{
	{Interface: 0, Time: at, Data: []byte{0x45, 1, 2, 3, 4}, Length: 1500, Direction: pcapng.Outbound, ID: 7},
	{Interface: 1, Time: at.Add(1), Data: []byte{0x60, 1, 2, 3}, Length: 4, Direction: pcapng.Inbound, ID: 1 << 50, Dropped: 9, Comments: []string{"dropped: martian: why", "é"}},
	{Interface: 1, Time: at.Add(time.Hour), Data: []byte{}, Length: 0},
}

// TestWritten: a written file can be read by two libraries.
func TestWritten(t *testing.T) {
	r, err := decode.NewReader(bytes.NewReader(file()))
	if err != nil {
		t.Fatal(err)
	}
	other, err := pcapgo.NewNgReader(bytes.NewReader(file()), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range written {
		p, iface, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(p, want) {
			t.Errorf("packet %d is %+v, want %+v", i, p, want)
		}
		if name := []string{"six0 inner", "six0 outer"}[want.Interface]; iface.Name != name || iface.Link != pcapng.LinkRaw {
			t.Errorf("packet %d is at %+v", i, iface)
		}
		data, info, err := other.ReadPacketData()
		if err != nil || !bytes.Equal(data, want.Data) || info.Length != want.Length || !info.Timestamp.Equal(want.Time) || info.InterfaceIndex != want.Interface {
			t.Errorf("another library: packet %d is % x, %+v, %v", i, data, info, err)
		}
	}
	if _, _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if _, _, err := other.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("another library: at the end: %v", err)
	}
	for i, want := range []pcapgo.NgInterface{
		{Name: "six0 inner", Description: "inside", Filter: "tcp port 80", LinkType: layers.LinkTypeRaw, SnapLength: 100},
		{Name: "six0 outer", LinkType: layers.LinkTypeRaw},
	} {
		got, err := other.Interface(i)
		if err != nil || got.Name != want.Name || got.Description != want.Description || got.Filter != want.Filter || got.LinkType != want.LinkType || got.SnapLength != want.SnapLength {
			t.Errorf("another library: interface %d is %+v, %v", i, got, err)
		}
	}
	if i, err := other.Interface(1); err != nil || i.Statistics.PacketsReceived != 2 || i.Statistics.PacketsDropped != 1<<40 || !i.Statistics.StartTime.Equal(at) || i.Statistics.Comment != "the tunnel was removed" {
		t.Errorf("another library: %+v, %v", i.Statistics, err)
	}
}

func TestBlocks(t *testing.T) {
	blocks := pcapng.NewBlocks(bytes.NewReader(file()))
	var types []uint32
	var all []byte
	packets := 0
	for {
		b, err := blocks.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		types = append(types, b.Type)
		all = append(all, b.Raw...)
		if b.Type == pcapng.BlockPacket {
			want := written[packets]
			packets++
			want.Time, want.Data, want.Comments = time.Time{}, nil, nil
			if got, err := b.PacketInfo(); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, %v, want %+v", got, err, want)
			}
		}
		if b.Type == pcapng.BlockStatistics {
			s, err := b.Statistics()
			if err != nil || s.Interface != 1 || s.Received != 2 || s.Lost != 1<<40 || s.Comment != "the tunnel was removed" {
				t.Errorf("%+v, %v", s, err)
			}
		}
	}
	if want := []uint32{pcapng.BlockHeader, 1, 1, 6, 6, 6, 5}; !reflect.DeepEqual(types, want) || !bytes.Equal(all, file()) {
		t.Errorf("%x, want %x", types, want)
	}
}

// block returns a block of the given type.
func block(kind uint32, body ...byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)+12))
	b = append(b, body...)
	return binary.LittleEndian.AppendUint32(b, uint32(len(body)+12))
}

// TestWrong: an error in a file is reported with its offset in bytes.
func TestWrong(t *testing.T) {
	header := pcapng.AppendHeader(nil, "")
	head := func(captured byte) []byte { return []byte{19: 4, 12: captured} }
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"text", []byte("root:x:0:0:root:/root:/bin/sh\n"), "no section header"},
		{"cut", file()[:40], "block at byte 0: the file is cut off"},
		{"magic", append([]byte{0xa, 0xd, 0xd, 0xa, 28, 0, 0, 0, 1, 2, 3, 4}, make([]byte, 20)...), "without its magic number"},
		{"length", append(header, 6, 0, 0, 0), "block at byte 32: the file is cut off"},
		{"odd length", append(header, 6, 0, 0, 0, 13, 0, 0, 0), "block at byte 32: a length of 13"},
		{"huge length", append(header, 6, 0, 0, 0, 0, 0, 0, 0x70), "block at byte 32: a length of 1879048192"},
		{"two lengths", append(header, 6, 0, 0, 0, 12, 0, 0, 0, 16, 0, 0, 0), "12 at its beginning and 16 at its end"},
		{"short packet", append(header, block(6, 0, 0, 0, 0)...), "block at byte 32: no packet of 16 bytes"},
		{"long packet", append(header, block(6, append(head(5), 1, 2, 3, 4)...)...), "block at byte 32: 5 bytes of a packet"},
		{"long option", append(header, block(6, append(head(0), 1, 0, 5, 0, 1, 2, 3, 4)...)...), "an option is longer than the block"},
		{"short statistics", append(header, block(5, 0, 0, 0, 0)...), "no statistics of 16 bytes"},
	} {
		blocks := pcapng.NewBlocks(bytes.NewReader(c.file))
		b, err := blocks.Next()
		for err == nil {
			switch b.Type {
			case pcapng.BlockPacket:
				_, err = b.PacketInfo()
			case pcapng.BlockStatistics:
				_, err = b.Statistics()
			}
			if err == nil {
				b, err = blocks.Next()
			}
		}
		if errors.Is(err, io.EOF) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func FuzzBlocks(f *testing.F) {
	f.Add(file())
	f.Fuzz(func(t *testing.T, b []byte) {
		blocks := pcapng.NewBlocks(bytes.NewReader(b))
		at := 0
		for {
			block, err := blocks.Next()
			if err != nil {
				return
			}
			if !bytes.Equal(block.Raw, b[at:at+len(block.Raw)]) {
				t.Fatal("a block differs from its bytes in the file")
			}
			at += len(block.Raw)
			_, _ = block.PacketInfo()
			_, _ = block.Statistics()
		}
	})
}
