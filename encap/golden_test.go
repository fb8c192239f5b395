package encap_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/source"
)

// Source MACs of the captures; see testdata/golden/README.md.
const (
	fromLAN = "02:00:00:00:0a:fe"
	toLAN   = "02:00:00:00:0a:01"
	fromWAN = "02:00:00:00:0b:fe"
	toWAN   = "02:00:00:00:0b:01"
)

type frame struct {
	n   int // frame number in the capture, from 1
	mac string
	ip  []byte
}

func readCapture(t *testing.T, name string) []frame {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "testdata", "golden", name+".pcap"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var frames []frame
	for {
		data, _, err := r.ReadPacketData()
		if err != nil {
			break
		}
		eth, ok := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default).LinkLayer().(*layers.Ethernet)
		if !ok {
			t.Fatalf("%s: frame %d is not Ethernet", name, len(frames)+1)
		}
		frames = append(frames, frame{len(frames) + 1, eth.SrcMAC.String(), eth.Payload})
	}
	if len(frames) == 0 {
		t.Fatalf("%s: no frames", name)
	}
	return frames
}

var (
	router = encap.Endpoints{
		Local: netip.MustParseAddr("203.0.113.1"), Remote: netip.MustParseAddr("203.0.113.2"),
		Local6: netip.MustParseAddr("fc00::1"), Remote6: netip.MustParseAddr("fc00::2"),
	}
	peer = encap.Endpoints{Local: router.Remote, Remote: router.Local, Local6: router.Remote6, Remote6: router.Local6}
)

// kernelOptions are the kernel's defaults: DSCP 0, TTL 64, ECN copied.
var kernelOptions = encap.Options{TTL: 64, HopLimit: 64, EncapLimit: encap.NoEncapLimit}

func newStack(t testing.TB, mode string, e encap.Endpoints, o encap.Options) *encap.Stack {
	t.Helper()
	m, ok := encap.ModeByName(mode)
	if !ok {
		m = encap.Mode{Name: mode, Layers: map[string][]encap.Kind{"4in6": {encap.FourInSix}}[mode]}
	}
	var ends []netip.Addr
	for _, a := range []netip.Addr{e.Local, e.Local6} {
		if a.IsValid() {
			ends = append(ends, a)
		}
	}
	s, err := encap.New(m.Between(e), 1500, o, source.New(nil, ends, false), encap.NewRecord())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// headers splits an outer packet of the captures into its delivery headers and
// the inner packet, with gopacket and not with our own code.
func headers(t *testing.T, outer []byte, mode string) (inner []byte, middle *layers.IPv6) {
	t.Helper()
	p := gopacket.NewPacket(outer, layers.LayerTypeIPv4, gopacket.Default)
	v4, ok := p.NetworkLayer().(*layers.IPv4)
	if !ok {
		t.Fatalf("not IPv4: %x", outer)
	}
	if mode == "6in4" {
		return v4.Payload, nil
	}
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.IPv6:
			middle, inner = l, l.Payload
		case *layers.IPv6Destination:
			return l.Payload, middle
		case *layers.IPv4:
			if middle != nil {
				return inner, middle
			}
		}
	}
	return inner, middle
}

// asWeMakeIt returns a kernel's outer packet with the fields that we fill differently:
//   - Identification: with DF set it has no meaning (RFC 6864 section 4.1), and we
//     write 0; the kernel counts.
//   - ECN: an inner CE is copied (RFC 6040 section 4.1, normal mode); the kernel
//     still makes it ECT(0) (RFC 3168 section 9.1.1).
//
// It reports whether the second was needed.
func asWeMakeIt(outer, inner []byte, mode string) (packet []byte, ce bool) {
	b := bytes.Clone(outer)
	ip := header.IPv4(b)
	binary.BigEndian.PutUint16(b[4:], 0)
	tos := header.IPv4(inner).TOS()
	if header.Version(inner) == 6 {
		tos = header.IPv6(inner).TrafficClass()
	}
	if tos&header.ECNMask == header.CE {
		ce = true
		b[1] |= header.CE
		if mode == "4in6in4" {
			header.IPv6(b[20:]).SetECN(header.CE)
		}
	}
	ip.SetChecksum()
	return b, ce
}

func TestGoldenEncapsulate(t *testing.T) {
	double := kernelOptions
	limited := kernelOptions
	limited.EncapLimit = 4
	sit := kernelOptions
	sit.TTL = encap.InheritTTL // the kernel's sit does so by default, its ip6tnl does not
	for _, c := range []struct {
		file, mode string
		options    encap.Options
		packets    int // packets encapsulated by a kernel
		ce         int // of these, packets with an inner CE
	}{
		{"sit-encap", "6in4", sit, 14, 2},
		{"double-encap", "4in6in4", limited, 16, 2},
		{"double-none-encap", "4in6in4", double, 16, 2},
		{"double-big", "4in6in4", limited, 8, 0},
		{"double-none-big", "4in6in4", double, 8, 0},
		{"double-decap", "4in6in4", limited, 4, 0}, // answers of the router
		{"sit-decap", "6in4", sit, 4, 0},
		{"local-sit-ping", "6in4", sit, 12, 0},
		{"local-sit-tcp", "6in4", sit, 40, 0},
		{"local-double-default-ping", "4in6in4", limited, 8, 0},
		{"local-double-default-big", "4in6in4", limited, 6, 0},
		{"local-double-default-tcp", "4in6in4", limited, 40, 0},
		{"local-double-none-ping", "4in6in4", double, 8, 0},
		{"local-double-none-big", "4in6in4", double, 8, 0},
		{"local-double-none-tcp", "4in6in4", double, 40, 0},
	} {
		t.Run(c.file, func(t *testing.T) {
			packets, ces := 0, 0
			for _, f := range readCapture(t, c.file) {
				from := router
				if f.mac == fromWAN && strings.HasPrefix(c.file, "local-") {
					from = peer
				} else if f.mac != toWAN || header.IPv4(f.ip).Protocol() != header.ProtoIPv6 {
					continue
				}
				packets++
				inner, middle := headers(t, f.ip, c.mode)
				o := c.options
				if middle != nil {
					o.FlowLabel = encap.FlowLabel{Source: encap.FlowLabelFixed, Fixed: middle.FlowLabel}
				}
				want, ce := asWeMakeIt(f.ip, inner, c.mode)
				if ce {
					ces++
				}
				got, r := encapsulate(newStack(t, c.mode, from, o), inner)
				if r != drop.None || !bytes.Equal(got, want) {
					t.Errorf("frame %d (%v)\n got %x\nwant %x", f.n, r, got, want)
					continue
				}
				sameForGopacket(t, got, want)
			}
			if packets != c.packets || ces != c.ce {
				t.Errorf("%d packets, %d with CE; want %d, %d", packets, ces, c.packets, c.ce)
			}
		})
	}
}

// encapsulate calls the stack with a buffer as in the data path.
func encapsulate(s *encap.Stack, inner []byte) ([]byte, drop.Reason) {
	return s.Encapsulate(append(make([]byte, encap.Headroom), inner...), encap.Headroom)
}

// sameForGopacket decodes both packets with an independent decoder: the same layers with
// the same fields, and correct checksums.
func sameForGopacket(t *testing.T, got, want []byte) {
	t.Helper()
	a := gopacket.NewPacket(got, layers.LayerTypeIPv4, gopacket.Default)
	b := gopacket.NewPacket(want, layers.LayerTypeIPv4, gopacket.Default)
	if len(a.Layers()) != len(b.Layers()) || len(a.Layers()) < 2 {
		t.Fatalf("layers %v, want %v", a.Layers(), b.Layers())
	}
	for i, l := range a.Layers() {
		if x, y := gopacket.LayerString(l), gopacket.LayerString(b.Layers()[i]); x != y {
			t.Errorf("layer %d\n got %s\nwant %s", i, x, y)
		}
	}
	outer := a.Layers()[0].(*layers.IPv4)
	if int(outer.Length) != len(got) || outer.Protocol != layers.IPProtocolIPv6 || outer.Flags != layers.IPv4DontFragment {
		t.Errorf("outer header: %s", gopacket.LayerString(outer))
	}
	for _, l := range a.Layers() {
		if ip, ok := l.(*layers.IPv4); ok && header.Sum(ip.Contents, 0) != 0xffff {
			t.Errorf("wrong checksum: %s", gopacket.LayerString(ip))
		}
	}
}

func TestGoldenDecapsulate(t *testing.T) {
	for _, c := range []struct {
		file, mode string
		refused    map[int]drop.Reason // frames that the kernel drops silently
	}{
		{"sit-decap", "6in4", map[int]drop.Reason{1: drop.Congestion}},
		{"double-decap", "4in6in4", map[int]drop.Reason{
			1: drop.Congestion, 44: drop.Congestion, 45: drop.Congestion, 48: drop.Congestion}},
	} {
		t.Run(c.file, func(t *testing.T) {
			s := newStack(t, c.mode, router, kernelOptions)
			frames := readCapture(t, c.file)
			for i, f := range frames {
				if f.mac != fromWAN {
					continue
				}
				raw, _ := headers(t, f.ip, c.mode)
				got, r := s.Decapsulate(bytes.Clone(f.ip))
				if want := c.refused[f.n]; r != want {
					t.Errorf("frame %d: %v, want %v", f.n, r, want)
					continue
				}
				if r != drop.None {
					continue
				}
				if i+1 < len(frames) && frames[i+1].mac == toLAN {
					want := frames[i+1].ip
					if got := forward(got); !bytes.Equal(got, want) {
						t.Errorf("frame %d\n got %x\nwant %x", f.n, got, want)
					}
				} else if !bytes.Equal(got, raw) { // the router itself received it
					t.Errorf("frame %d\n got %x\nwant %x", f.n, got, raw)
				}
			}
		})
	}
}

// forward does what the recording router did with a packet that it sent.
func forward(inner []byte) []byte {
	b := bytes.Clone(inner)
	if header.Version(b) == 4 {
		b[8]--
		header.IPv4(b).SetChecksum()
	} else {
		b[7]--
	}
	return b
}

// TestGoldenDecapsulateKernelTraffic: the other end gets back exactly what a kernel
// encapsulated.
func TestGoldenDecapsulateKernelTraffic(t *testing.T) {
	for _, file := range []string{
		"sit-encap", "double-encap", "double-none-encap", "double-big", "double-none-big",
		"local-sit-ping", "local-sit-tcp", "local-double-default-ping", "local-double-default-big", "local-double-default-tcp",
		"local-double-none-ping", "local-double-none-big", "local-double-none-tcp",
	} {
		t.Run(file, func(t *testing.T) {
			mode := "4in6in4"
			if strings.Contains(file, "sit") {
				mode = "6in4"
			}
			packets := 0
			for _, f := range readCapture(t, file) {
				at := peer
				switch {
				case f.mac == fromWAN && strings.HasPrefix(file, "local-"):
					at = router
				case f.mac != toWAN:
					continue
				}
				packets++
				want, _ := headers(t, f.ip, mode)
				got, r := newStack(t, mode, at, kernelOptions).Decapsulate(bytes.Clone(f.ip))
				if r != drop.None || !bytes.Equal(got, want) {
					t.Errorf("frame %d (%v)\n got %x\nwant %x", f.n, r, got, want)
				}
			}
			if packets == 0 {
				t.Error("no packets")
			}
		})
	}
}
