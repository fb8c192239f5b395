package pcapng

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"
)

// Block is a block of a pcapng file.
type Block struct {
	Type   uint32
	Raw    []byte // with type and lengths; valid until the next one is read
	order  binary.ByteOrder
	offset int64 // offset in the file
}

// body returns what is between the lengths.
func (b *Block) body() []byte { return b.Raw[8 : len(b.Raw)-4] }

// error returns an error with the block's offset.
func (b *Block) error(format string, args ...any) error {
	return fmt.Errorf("the block at byte %d: %s", b.offset, fmt.Sprintf(format, args...))
}

// maxBlock is the longest block that is read, in bytes. Blocks with packets have at most
// some hundred kilobytes.
const maxBlock = 16 << 20

// Blocks reads the blocks of a pcapng file one after the other.
type Blocks struct {
	r      io.Reader
	order  binary.ByteOrder // of the section
	offset int64
	buf    bytes.Buffer

	interfaces []units // of the section
	snap       uint32  // snapshot length of the first one
}

// units are the units of the times of an interface.
type units struct {
	resolution byte  // if_tsresol: 10 to the -n, or with the highest bit 2 to the -n seconds
	offset     int64 // if_tsoffset, in seconds
}

// defaultUnits are those of an interface without options: microseconds since 1970.
var defaultUnits = units{resolution: 6}

// NewBlocks returns a Blocks that reads from r.
func NewBlocks(r io.Reader) *Blocks { return &Blocks{r: r} }

// ErrCut means that the file is truncated.
var ErrCut = errors.New("the file is cut off there")

// Next returns the next block. The error is io.EOF if the file ends after a block. Other
// errors contain the offset in bytes. Only whole blocks are returned.
func (s *Blocks) Next() (*Block, error) {
	b := &Block{offset: s.offset}
	s.buf.Reset()
	if err := s.read(8); err != nil {
		if errors.Is(err, io.EOF) && s.buf.Len() == 0 {
			return nil, io.EOF
		}
		return nil, b.truncated(err)
	}
	head := s.buf.Bytes()
	isHeader := binary.LittleEndian.Uint32(head) == BlockHeader // the same in both byte orders
	if isHeader {
		if err := s.read(4); err != nil {
			return nil, b.truncated(err)
		}
		switch head = s.buf.Bytes(); binary.LittleEndian.Uint32(head[8:]) {
		case byteOrderMagic:
			s.order = binary.LittleEndian
		case 0x4d3c2b1a:
			s.order = binary.BigEndian
		default:
			return nil, b.error("a section header without its magic number")
		}
	} else if s.order == nil {
		return nil, b.error("no section header: this is not a capture file")
	}
	b.order, b.Type = s.order, s.order.Uint32(head)
	length := int64(s.order.Uint32(head[4:]))
	if length%4 != 0 || length < 12 || isHeader && length < 28 || length > maxBlock {
		return nil, b.error("a length of %d", length)
	}
	if err := s.read(length - int64(s.buf.Len())); err != nil {
		return nil, b.truncated(err)
	}
	b.Raw = s.buf.Bytes()
	if again := int64(s.order.Uint32(b.Raw[length-4:])); again != length {
		return nil, b.error("the length is %d at its beginning and %d at its end", length, again)
	}
	s.offset += length
	return b, nil
}

// truncated returns the error for a read that failed in the middle of a block.
func (b *Block) truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the block at byte %d: %w", b.offset, ErrCut)
	}
	return err
}

// read appends n bytes to the buffer, which grows only as the bytes arrive.
func (s *Blocks) read(n int64) error {
	_, err := io.CopyN(&s.buf, s.r, n)
	return err
}

// options calls each, unless it is nil, for every option, up to one that is truncated.
func (b *Block) options(o []byte, each func(code uint16, value []byte)) error {
	for len(o) >= 4 {
		code, n := b.order.Uint16(o), int(b.order.Uint16(o[2:]))
		if code == optEnd {
			return nil
		}
		padded := (n + 3) &^ 3
		if len(o) < 4+padded {
			return b.error("an option is longer than the block")
		}
		if each != nil {
			each(code, o[4:4+n])
		}
		o = o[4+padded:]
	}
	return nil
}

// maxInterfaces is how many interfaces a section may have.
const maxInterfaces = 1 << 12

// Check checks whether what the last block contains fits into it, and into the section. It
// must be called for each block of a file.
func (s *Blocks) Check(b *Block) error {
	body := b.body()
	switch b.Type {
	case BlockHeader:
		s.interfaces = s.interfaces[:0]
		return b.options(body[16:], nil)
	case BlockInterface:
		if len(body) < 8 {
			return b.error("an interface of %d bytes", len(body))
		}
		if len(s.interfaces) == 0 {
			s.snap = b.order.Uint32(body[4:])
		}
		if len(s.interfaces) == maxInterfaces {
			return b.error("more than %d interfaces", maxInterfaces)
		}
		u := defaultUnits
		err := b.options(body[8:], func(code uint16, v []byte) {
			switch {
			case code == optResolution && len(v) == 1:
				u.resolution = v[0]
			case code == optOffset && len(v) == 8:
				u.offset = int64(b.order.Uint64(v))
			}
		})
		s.interfaces = append(s.interfaces, u)
		return err
	case BlockPacket:
		p, err := b.PacketInfo()
		if err == nil && p.Interface >= len(s.interfaces) {
			err = b.error("interface %d, which is not described", p.Interface)
		}
		return err
	case BlockSimple:
		if len(body) < 4 || len(s.interfaces) == 0 {
			return b.error("a packet of %d bytes, and %d interfaces", len(body), len(s.interfaces))
		}
		captured := b.order.Uint32(body)
		if s.snap != 0 {
			captured = min(captured, s.snap)
		}
		if int64(captured) > int64(len(body)-4) {
			return b.error("%d bytes of a packet", captured)
		}
	}
	return nil
}

// Time returns the time of a packet block that Check has accepted, exact to the nanosecond
// whatever the units of its interface are. It must be called before the next block is
// checked. The zero Time means that a block has none.
func (s *Blocks) Time(b *Block) time.Time {
	if b.Type != BlockPacket {
		return time.Time{}
	}
	body := b.body()
	return s.interfaces[b.order.Uint32(body)].time(uint64(b.order.Uint32(body[4:]))<<32 | uint64(b.order.Uint32(body[8:])))
}

// time converts a time in these units, rounded down to a nanosecond.
func (u units) time(n uint64) time.Time {
	const second = uint64(time.Second)
	var sec, ns uint64
	if exponent := u.resolution & 0x7f; u.resolution&0x80 != 0 { // 2 to the -exponent
		if exponent > maxBinary {
			n, exponent = n>>(exponent-maxBinary), maxBinary
		}
		hi, lo := bits.Mul64(n&(1<<exponent-1), second)
		sec, ns = n>>exponent, hi<<(64-exponent)|lo>>exponent
	} else { // 10 to the -exponent
		for ; exponent > maxDecimal; exponent-- {
			n /= 10
		}
		per := uint64(1)
		for range exponent {
			per *= 10
		}
		hi, lo := bits.Mul64(n%per, second)
		sec = n / per
		ns, _ = bits.Div64(hi, lo, per)
	}
	return time.Unix(int64(sec)+u.offset, int64(ns)).UTC()
}

// Exponents of the smallest units of which a second still fits into 64 bits.
const (
	maxBinary  = 63
	maxDecimal = 19
)

// PacketInfo parses the fields of a packet block beside the packet: interface, length,
// direction, ID and lost packets. The other fields of the Packet are not set.
func (b *Block) PacketInfo() (p Packet, err error) {
	body := b.body()
	if b.Type != BlockPacket || len(body) < packetHead {
		return p, b.error("no packet of %d bytes", len(b.Raw))
	}
	captured := int64(b.order.Uint32(body[12:]))
	padded := (captured + 3) &^ 3
	if padded > int64(len(body)-packetHead) {
		return p, b.error("%d bytes of a packet", captured)
	}
	p.Interface, p.Length = int(min(b.order.Uint32(body), math.MaxInt32)), int(min(b.order.Uint32(body[16:]), math.MaxInt32))
	return p, b.options(body[packetHead+padded:], func(code uint16, v []byte) {
		switch {
		case code == optFlags && len(v) == 4:
			p.Direction = Direction(b.order.Uint32(v) & 3)
		case code == optDropped && len(v) == 8:
			p.Dropped = b.order.Uint64(v)
		case code == optID && len(v) == 8:
			p.ID = b.order.Uint64(v)
		}
	})
}

// packetHead is the length of what precedes the packet in a block.
const packetHead = 20

// Statistics parses a block of counters.
func (b *Block) Statistics() (s Statistics, err error) {
	body := b.body()
	if b.Type != BlockStatistics || len(body) < 12 {
		return s, b.error("no statistics of %d bytes", len(b.Raw))
	}
	s.Interface = int(min(b.order.Uint32(body), math.MaxInt32))
	return s, b.options(body[12:], func(code uint16, v []byte) {
		switch {
		case code == optComment:
			s.Comment = string(v)
		case code == optReceived && len(v) == 8:
			s.Received = b.order.Uint64(v)
		case code == optLost && len(v) == 8:
			s.Lost = b.order.Uint64(v)
		}
	})
}
