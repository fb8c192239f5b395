package kernel

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// Peer identifies a peer in the tables.
type Peer uint32

// Nobody is the peer behind which the addresses are that no peer may have, such as those of
// this host. The programs carry no packets for Nobody.
const Nobody Peer = 0xffffffff

// Flags of programsPath, as in bpf/kernel.c.
const (
	over4      = 1
	twoLayers  = 2
	gre        = 4
	labelHash  = 8
	labelInner = 16
	needsDF    = 32
)

// mostHeaders is the room for headers in programsPath.
const mostHeaders = len(programsPath{}.Headers)

// newSecret returns a number that nobody can guess, and that differs from all earlier ones.
func newSecret() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return binary.NativeEndian.Uint64(b[:])
}

// Hop is how outer packets leave: through a device, given by its index, and with a firewall mark,
// by which they may be routed.
type Hop struct {
	Device int
	Mark   uint32
}

// Send makes the program carry packets of an IP version to a peer, with headers that
// Stack.Headers returns. It replaces the headers and the hop that it had; a packet gets either
// those or these.
func (p *Programs) Send(peer Peer, version int, hop Hop, h encap.Headers) error {
	v, err := pathOf(hop, h)
	if err == nil {
		v.Peer, v.Version, v.Fresh = uint32(peer), uint32(version), newSecret()
		v.Check, err = checkOf(v)
	}
	if err == nil {
		err = put(p.objects.Paths, programsPathKey{Peer: uint32(peer), Version: uint32(version)}, v)
	}
	if err != nil {
		return fmt.Errorf("BPF path for IPv%d to peer %d: %w", version, peer, err)
	}
	return nil
}

// StopSending undoes Send.
func (p *Programs) StopSending(peer Peer, version int) error {
	return remove(p.objects.Paths, programsPathKey{Peer: uint32(peer), Version: uint32(version)})
}

func pathOf(hop Hop, h encap.Headers) (v programsPath, err error) {
	if len(h.Bytes) > mostHeaders {
		return v, fmt.Errorf("there is room for %d bytes of headers, not %d", mostHeaders, len(h.Bytes))
	}
	copy(v.Headers[:], h.Bytes)
	v.Size, v.Limit, v.Device, v.Sum = uint32(len(h.Bytes)), uint32(h.Limit), uint32(hop.Device), h.Sum
	v.Mark = hop.Mark
	v.Keep, v.Set, v.Ttl, v.HopLimit = h.Keep, h.Set, h.TTL, h.HopLimit
	length := header.IPv6Len
	if h.Over == 4 {
		v.Flags |= over4
		length = header.IPv4Len
	}
	switch len(h.Bytes) - length {
	case 0:
	case header.IPv6Len:
		v.Flags |= twoLayers
	default:
		v.Flags |= gre
	}
	switch h.Label {
	case encap.FlowLabelHash:
		v.Flags |= labelHash
	case encap.FlowLabelInner:
		v.Flags |= labelInner
	}
	if h.NeedsDF {
		v.Flags |= needsDF
	}
	return v, nil
}

// Receive makes the program carry packets from a peer, whose headers are those of layers,
// innermost first, to the tunnel's interface.
func (p *Programs) Receive(peer Peer, tunnel int, layers []encap.Layer) error {
	table, key, value, err := p.end(peer, tunnel, layers)
	if err == nil {
		value.Fresh = newSecret()
		value.Identity, err = identify(key)
	}
	if err == nil {
		value.Check, err = checkOf(value)
	}
	if err == nil {
		err = put(table, key, value)
	}
	if err != nil {
		return fmt.Errorf("BPF end for packets from peer %d: %w", peer, err)
	}
	return nil
}

// identify returns a number for a key, as the programs compute it.
func identify(key any) (n uint64, err error) {
	return n, eachWord(key, func(w uint64) { n = (n + w) * 0x9e3779b97f4a7c15 })
}

// checkOf returns the last word of an entry whose last word is 0 (see bpf/kernel.c).
func checkOf(entry any) (sum uint64, err error) {
	return sum, eachWord(entry, func(w uint64) { sum ^= w })
}

// eachWord calls f for each word of a value, as the programs read it.
func eachWord(v any, f func(uint64)) error {
	b, err := binary.Append(nil, binary.NativeEndian, v)
	for ; len(b) >= 8; b = b[8:] {
		f(binary.NativeEndian.Uint64(b))
	}
	return err
}

// StopReceiving undoes Receive, with the same layers.
func (p *Programs) StopReceiving(layers []encap.Layer) error {
	table, key, _, err := p.end(0, 0, layers)
	if err != nil {
		return err
	}
	return remove(table, key)
}

// errLayers says that the programs do not know the layers.
var errLayers = errors.New("the programs know one layer, or IPv6 in IPv4")

// end returns the entry for packets from a peer, and the table in which it belongs.
func (p *Programs) end(peer Peer, tunnel int, layers []encap.Layer) (table *ebpf.Map, key any, value programsEnd, err error) {
	if len(layers) == 0 || len(layers) > 2 || len(layers) == 2 && (layers[0].Kind != encap.FourInSix || layers[1].Kind != encap.SixInFour) {
		return nil, nil, value, errLayers
	}
	outer := layers[len(layers)-1]
	if outer.Resolver != nil || !outer.Remote.IsValid() {
		return nil, nil, value, errLayers
	}
	value = programsEnd{Peer: uint32(peer), Tunnel: uint32(tunnel), Layers: uint32(len(layers))}
	if len(layers) == 2 {
		value.Remote, value.Local = words(layers[0].Remote), words(layers[0].Local)
	}
	var id, keyed = uint32(0), uint8(0)
	switch f := outer.Kind.Framing().(type) {
	case framing.Bare:
	case framing.GRE:
		if f.Checksum || f.Sequence {
			return nil, nil, value, errLayers
		}
		if has, k := f.Inward(); has {
			id, keyed = network32(k), 1
		}
	default:
		return nil, nil, value, errLayers
	}
	if outer.Kind.Over() == 4 {
		key = programsOuter4{From: word(outer.Remote), At: word(outer.Local), Key: id, Protocol: outer.Kind.Protocol(), Keyed: keyed}
		return p.objects.Ends4, key, value, nil
	}
	key = programsOuter6{From: words(outer.Remote), At: words(outer.Local), Key: id, Protocol: outer.Kind.Protocol(), Keyed: keyed}
	return p.objects.Ends6, key, value, nil
}

// Behind says that the addresses of a prefix, inside the tunnel with the given interface, are
// behind a peer. The longest prefix counts. The address of the prefix may have a zone, which
// is ignored.
func (p *Programs) Behind(tunnel int, prefix netip.Prefix, peer Peer) error {
	table, key := p.prefix(tunnel, prefix)
	if err := put(table, key, uint32(peer)); err != nil {
		return fmt.Errorf("BPF table of prefixes: %v: %w", prefix, err)
	}
	return nil
}

// NotBehind undoes Behind.
func (p *Programs) NotBehind(tunnel int, prefix netip.Prefix) error {
	table, key := p.prefix(tunnel, prefix)
	return remove(table, key)
}

func (p *Programs) prefix(tunnel int, prefix netip.Prefix) (*ebpf.Map, any) {
	prefix = prefix.Masked()
	bits := uint32(32 + prefix.Bits())
	if prefix.Addr().Is4() {
		return p.objects.Behind4, programsPrefix4{Bits: bits, Tunnel: uint32(tunnel), Address: word(prefix.Addr())}
	}
	return p.objects.Behind6, programsPrefix6{Bits: bits, Tunnel: uint32(tunnel), Address: words(prefix.Addr())}
}

// Counts are the packets of a peer that the programs have carried. Bytes are those of the
// inner packets.
type Counts struct {
	Sent, Received Traffic
	Large          uint64 // sent, and larger than every path carries unfragmented: more than 1300 bytes with all headers
	OddECN         uint64 // received with ECN fields that no correct path produces
}

// Traffic is a number of packets, and of their bytes.
type Traffic struct{ Packets, Bytes uint64 }

// Count makes the programs count the packets of a peer, from 0. Without it, they carry them
// uncounted.
func (p *Programs) Count(peer Peer) error {
	cpus, err := ebpf.PossibleCPU()
	if err == nil {
		err = put(p.objects.Counts, uint32(peer), make([]programsCount, cpus))
	}
	if err != nil {
		return fmt.Errorf("BPF counters of peer %d: %w", peer, err)
	}
	return nil
}

// StopCounting removes the counters of a peer.
func (p *Programs) StopCounting(peer Peer) error { return remove(p.objects.Counts, uint32(peer)) }

// Counts returns the counts of a peer since Count.
func (p *Programs) Counts(peer Peer) (c Counts, err error) {
	var each []programsCount
	if err := p.objects.Counts.Lookup(uint32(peer), &each); err != nil {
		return c, fmt.Errorf("BPF counters of peer %d: %w", peer, err)
	}
	for _, n := range each {
		c.Sent.Packets += n.OutPackets
		c.Sent.Bytes += n.OutBytes
		c.Received.Packets += n.InPackets
		c.Received.Bytes += n.InBytes
		c.Large += n.OutLarge
		c.OddECN += n.OddEcn
	}
	return c, nil
}

// patience is how often put tries again.
const patience = 1000

// put writes an entry. The kernel allocates memory for new entries ahead, in the background,
// so it may have none now, but soon, if many are written at once.
func put(table *ebpf.Map, key, value any) error {
	for range patience {
		err := table.Put(key, value)
		if !errors.Is(err, unix.ENOMEM) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return table.Put(key, value)
}

// remove deletes an entry; it is no error if there is none.
func remove(table *ebpf.Map, key any) error {
	if err := table.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("BPF table: delete: %w", err)
	}
	return nil
}

// word returns an IPv4 address as a header has it.
func word(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

// words is word for IPv6.
func words(a netip.Addr) [2]uint64 {
	b := a.As16()
	return [2]uint64{binary.NativeEndian.Uint64(b[:8]), binary.NativeEndian.Uint64(b[8:])}
}

// network32 returns v with its bytes in the order in which a packet has them.
func network32(v uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return binary.NativeEndian.Uint32(b[:])
}
