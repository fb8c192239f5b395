package pcapng_test

import (
	"io"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"sixfour/internal/pcapng"
)

// BenchmarkWrite compares this package with gopacket's writer: a packet with direction and
// ID, and one that was dropped after others were lost.
func BenchmarkWrite(b *testing.B) {
	data, comment := make([]byte, 1400), "dropped: martian: an inner address cannot be there"
	for _, c := range []struct {
		name     string
		lost     uint64
		comments []string
	}{{"carried", 0, nil}, {"dropped", 3, []string{comment}}} {
		b.Run(c.name+"/ours", func(b *testing.B) {
			b.ReportAllocs()
			p := pcapng.Packet{Time: time.Now(), Data: data, Length: len(data), Direction: pcapng.Inbound, Dropped: c.lost, Comments: c.comments}
			var buf []byte
			for b.Loop() {
				p.ID++
				if buf = pcapng.AppendPacket(buf, &p); len(buf) > 64<<10 {
					buf = buf[:0]
				}
			}
		})
		b.Run(c.name+"/gopacket", func(b *testing.B) {
			b.ReportAllocs()
			w, err := pcapgo.NewNgWriter(io.Discard, layers.LinkTypeRaw)
			if err != nil {
				b.Fatal(err)
			}
			info := gopacket.CaptureInfo{Timestamp: time.Now(), CaptureLength: len(data), Length: len(data)}
			id, flags := uint64(0), pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound}
			options := pcapgo.NgPacketOptions{Comments: c.comments, Flags: &flags, PacketID: &id}
			if c.lost > 0 {
				options.DropCount = &c.lost
			}
			for b.Loop() {
				id++
				if err := w.WritePacketWithOptions(info, data, options); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
