package pcapng

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"
)

// Reader reads the packets of a pcapng or pcap file.
type Reader struct {
	next       func(*Packet) error
	interfaces []Interface // of the section
	blocks     *Blocks
	pcap       *pcap
}

// maxInterfaces is how many interfaces a section may have.
const maxInterfaces = 1 << 12

// NewReader detects the format of the file. The error says what is wrong with the file.
func NewReader(from io.Reader) (*Reader, error) {
	buffered := bufio.NewReader(from)
	magic, err := buffered.Peek(4)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the file is empty, or too short for a capture")
		}
		return nil, err
	}
	r := new(Reader)
	if binary.BigEndian.Uint32(magic) == BlockHeader {
		r.blocks = NewBlocks(buffered)
		r.next = r.nextPacket
		return r, nil
	}
	if r.pcap, err = newPcap(buffered); err != nil {
		return nil, err
	}
	r.interfaces, r.next = []Interface{r.pcap.iface}, r.pcap.nextPacket
	return r, nil
}

// Next returns the next packet, whose data is valid until the next call. The error is
// io.EOF at the end.
func (r *Reader) Next() (Packet, Interface, error) {
	var p Packet
	if err := r.next(&p); err != nil {
		return Packet{}, Interface{}, err
	}
	return p, r.interfaces[p.Interface], nil
}

func (r *Reader) nextPacket(p *Packet) error {
	for {
		b, err := r.blocks.Next()
		if err != nil {
			return err
		}
		switch b.Type {
		case BlockHeader:
			r.interfaces = nil
		case BlockInterface:
			i, err := b.iface()
			if err != nil {
				return err
			}
			if len(r.interfaces) == maxInterfaces {
				return b.fail("more than %d interfaces", maxInterfaces)
			}
			r.interfaces = append(r.interfaces, i)
		case BlockPacket:
			return r.packet(b, p)
		case BlockSimple:
			return r.simple(b, p)
		}
	}
}

// iface parses the description of an interface.
func (b *Block) iface() (i Interface, err error) {
	body := b.body()
	if len(body) < 8 {
		return i, b.fail("an interface of %d bytes", len(body))
	}
	i = Interface{Link: b.order.Uint16(body), Snap: b.order.Uint32(body[4:]), resolution: 6}
	return i, b.options(body[8:], func(code uint16, v []byte) {
		switch {
		case code == optName:
			i.Name = string(v)
		case code == optDescription:
			i.Description = string(v)
		case code == optResolution && len(v) == 1:
			i.resolution = v[0]
		case code == optOffset && len(v) == 8:
			i.offset = int64(b.order.Uint64(v))
		case code == optFilter && len(v) > 1 && v[0] == 0:
			i.Filter = string(v[1:])
		}
	})
}

func (r *Reader) packet(b *Block, p *Packet) (err error) {
	if *p, err = b.Marks(); err != nil {
		return err
	}
	if p.Interface >= len(r.interfaces) {
		return b.fail("interface %d, of which nothing was said", p.Interface)
	}
	units := b.body()[4:]
	p.Time = r.interfaces[p.Interface].time(uint64(b.order.Uint32(units))<<32 | uint64(b.order.Uint32(units[4:])))
	return nil
}

// simple reads a packet of which the block has only the length.
func (r *Reader) simple(b *Block, p *Packet) error {
	body := b.body()
	if len(body) < 4 || len(r.interfaces) == 0 {
		return b.fail("a packet of %d bytes, and %d interfaces", len(body), len(r.interfaces))
	}
	length := b.order.Uint32(body)
	captured := int64(length)
	if snap := r.interfaces[0].Snap; snap != 0 {
		captured = min(captured, int64(snap))
	}
	if captured > int64(len(body)-4) {
		return b.fail("%d bytes of a packet", captured)
	}
	p.Length, p.Data = int(min(length, math.MaxInt32)), body[4:4+captured]
	return nil
}

// time converts a time from the interface's units.
func (i *Interface) time(units uint64) time.Time {
	const second = uint64(time.Second)
	var sec, frac uint64
	if n := i.resolution & 0x7f; i.resolution&0x80 != 0 { // 2 to the -n
		if n >= 64 {
			return time.Unix(i.offset, 0).UTC()
		}
		hi, lo := bits.Mul64(units&(1<<n-1), second)
		sec, frac = units>>n, hi<<(64-n)|lo>>n
	} else { // 10 to the -n
		per := uint64(1)
		for range min(n, 19) {
			per *= 10
		}
		sec, frac = units/per, units%per
		if per > second {
			frac /= per / second
		} else {
			frac *= second / per
		}
	}
	return time.Unix(int64(sec)+i.offset, int64(frac)).UTC()
}

// pcap reads a file in the older format.
type pcap struct {
	r     io.Reader
	order binary.ByteOrder
	nano  bool
	iface Interface
	at    int64
	buf   []byte
}

func newPcap(r io.Reader) (*pcap, error) {
	var head [24]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, errors.New("no capture file: it is shorter than the header of one")
	}
	f := &pcap{r: r, at: int64(len(head))}
	switch binary.LittleEndian.Uint32(head[:]) {
	case 0xa1b2c3d4:
		f.order = binary.LittleEndian
	case 0xa1b23c4d:
		f.order, f.nano = binary.LittleEndian, true
	case 0xd4c3b2a1:
		f.order = binary.BigEndian
	case 0x4d3cb2a1:
		f.order, f.nano = binary.BigEndian, true
	default:
		return nil, fmt.Errorf("no capture file: it begins with % x, which neither pcapng nor pcap does", head[:4])
	}
	f.iface = Interface{Link: uint16(f.order.Uint32(head[20:])), Snap: f.order.Uint32(head[16:])}
	return f, nil
}

// maxRecord is the size of the longest packet in a pcap file, in bytes.
const maxRecord = 1 << 20

func (f *pcap) nextPacket(p *Packet) error {
	var head [16]byte
	at := f.at
	switch _, err := io.ReadFull(f.r, head[:]); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the packet at byte %d: %w", at, ErrCut)
	case err != nil:
		return err
	}
	captured := f.order.Uint32(head[8:])
	if captured > maxRecord {
		return fmt.Errorf("the packet at byte %d: a length of %d", at, captured)
	}
	if int(captured) > len(f.buf) {
		f.buf = make([]byte, captured)
	}
	p.Data = f.buf[:captured]
	if _, err := io.ReadFull(f.r, p.Data); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("the packet at byte %d: %w", at, ErrCut)
		}
		return err
	}
	f.at += int64(len(head)) + int64(captured)
	frac := int64(f.order.Uint32(head[4:]))
	if !f.nano {
		frac *= 1000
	}
	p.Time = time.Unix(int64(f.order.Uint32(head[:])), frac).UTC()
	p.Length = int(min(f.order.Uint32(head[12:]), math.MaxInt32))
	return nil
}
