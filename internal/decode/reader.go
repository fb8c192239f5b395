package decode

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"

	"sixfour/internal/pcapng"
)

// Reader reads the packets of a pcapng or pcap file, with the readers of gopacket. They
// do not check the lengths inside a block, and read a damaged file as packets; and they
// convert times exactly only from units of 10^-1 to 10^-9 seconds. So package pcapng reads
// and checks the blocks first, reports errors with their offset, and converts the times.
type Reader struct {
	in *bufio.Reader

	ng     *pcapgo.NgReader // of a pcapng file; else nil
	blocks *blocks
	big    bool // the first section of a pcapng file is big-endian

	pcap *pcapgo.Reader
	at   int64 // offset of the next packet in a pcap file
}

const (
	maxRecord  = 1 << 20 // bytes of a packet in a pcap file
	pcapHeader = 24      // bytes in front of the first packet of a pcap file
	pcapRecord = 16      // bytes in front of each packet of a pcap file
)

// NewReader detects the format of the file. The error describes what is wrong with the file.
func NewReader(from io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReader(from), at: pcapHeader}
	magic, err := r.in.Peek(4)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the file is empty, or too short for a capture")
		}
		return nil, err
	}
	if binary.BigEndian.Uint32(magic) == pcapng.BlockHeader {
		head, _ := r.in.Peek(12) // an error comes again with the block
		r.big = len(head) == 12 && head[8] == 0x1a
		r.blocks = &blocks{from: pcapng.NewBlocks(r.in)}
		r.ng, err = pcapgo.NewNgReader(r.blocks, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		if err != nil {
			return nil, r.blocks.explain(err)
		}
		return r, nil
	}
	switch binary.BigEndian.Uint32(magic) {
	case 0xa1b2c3d4, 0xa1b23c4d, 0xd4c3b2a1, 0x4d3cb2a1:
	default:
		return nil, fmt.Errorf("not a capture file: it begins with % x, unlike pcapng and pcap", magic)
	}
	r.pcap, err = pcapgo.NewReader(r.in)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errors.New("not a capture file: it is shorter than the header of one")
	}
	if err != nil {
		return nil, err
	}
	r.pcap.SetSnaplen(maxRecord) // packets may be longer than the snapshot length of the file
	return r, nil
}

// Next returns the next packet, whose data is valid until the next call. The error is
// io.EOF at the end.
func (r *Reader) Next() (pcapng.Packet, pcapng.Interface, error) {
	if r.pcap != nil {
		return r.nextPcap()
	}
	return r.nextPcapng()
}

func (r *Reader) nextPcap() (p pcapng.Packet, i pcapng.Interface, err error) {
	if _, err := r.in.Peek(1); err != nil {
		return p, i, err
	}
	data, info, err := r.pcap.ZeroCopyReadPacketData()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = pcapng.ErrCut
	}
	if err != nil {
		return p, i, fmt.Errorf("the packet at byte %d: %w", r.at, err)
	}
	r.at += pcapRecord + int64(len(data))
	return packet(data, info), pcapng.Interface{Link: uint16(r.pcap.LinkType())}, nil
}

func (r *Reader) nextPcapng() (p pcapng.Packet, i pcapng.Interface, err error) {
	data, info, options, err := r.ng.ZeroCopyReadPacketDataWithOptions()
	if err != nil {
		return p, i, r.blocks.explain(err)
	}
	described, err := r.ng.Interface(info.InterfaceIndex)
	if err != nil {
		return p, i, err
	}
	p = packet(data, info)
	p.Time = r.blocks.time
	p.Comments = options.Comments
	if options.Flags != nil {
		p.Direction = pcapng.Direction(r.number(uint64(options.Flags.ToUint32()), 32) & 3)
	}
	if options.PacketID != nil {
		p.ID = r.number(*options.PacketID, 64)
	}
	if options.DropCount != nil {
		p.Dropped = r.number(*options.DropCount, 64)
	}
	return p, pcapng.Interface{
		Name: described.Name, Description: described.Description, Filter: described.Filter,
		Link: uint16(described.LinkType), Snap: described.SnapLength,
	}, nil
}

func packet(data []byte, info gopacket.CaptureInfo) pcapng.Packet {
	p := pcapng.Packet{Interface: info.InterfaceIndex, Time: info.Timestamp, Data: data, Length: info.Length}
	if p.Length < 0 || p.Length > math.MaxInt32 {
		p.Length = math.MaxInt32
	}
	return p
}

// number corrects a number of a packet's option, of which gopacket assumes that it is
// little-endian.
func (r *Reader) number(n uint64, size int) uint64 {
	if r.big {
		return bits.ReverseBytes64(n) >> (64 - size)
	}
	return n
}

// blocks is a pcapng file with the blocks that describe packets, which were checked.
type blocks struct {
	from *pcapng.Blocks
	left []byte    // of the current block
	time time.Time // of the packet in it
	err  error
}

func (b *blocks) Read(p []byte) (int, error) {
	for len(b.left) == 0 {
		block, err := b.from.Next()
		if err == nil {
			err = b.from.Check(block)
		}
		if err != nil {
			b.err = err
			return 0, err
		}
		switch block.Type {
		case pcapng.BlockHeader, pcapng.BlockInterface, pcapng.BlockPacket, pcapng.BlockSimple:
			b.left, b.time = block.Raw, b.from.Time(block)
		}
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// explain returns the error of reading or checking a block instead of what gopacket made of
// it.
func (b *blocks) explain(err error) error {
	if b.err != nil {
		return b.err
	}
	return err
}
