package encap_test

import (
	"bytes"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/source"
	"sixfour/internal/vectors"
)

func TestTunnelMTU(t *testing.T) {
	limited := encap.DefaultOptions
	limited.EncapLimit = 4
	for _, c := range []struct {
		mode string
		path encap.PathMTU
		o    encap.Options
		ipv6 bool
		want encap.TunnelMTU
	}{
		{"4in6in4", 1500, encap.DefaultOptions, true, 1440},
		{"4in6in4", 1500, limited, true, 1432},
		{"4in6in4", 1420, encap.DefaultOptions, true, 1360},
		{"4in6in4", 1280, encap.DefaultOptions, false, 1220},
		{"4in6in4", 1280, encap.DefaultOptions, true, 1280},
		{"4in6in4", 65536, encap.DefaultOptions, true, 65475},
		{"4in6in4", 100, encap.DefaultOptions, false, 68},
		{"6in4", 1500, encap.DefaultOptions, true, 1480},
		{"4in4", 1500, encap.DefaultOptions, false, 1480},
		{"4in6", 1500, encap.DefaultOptions, false, 1460},
		{"6in6", 1500, limited, true, 1452},
		{"gre", 1500, encap.DefaultOptions, true, 1476},
		{"gre6", 1500, limited, true, 1448},
	} {
		m, _ := encap.ModeByName(c.mode)
		if got := encap.MTU(m.Between(router), c.path, c.o, c.ipv6); got != c.want {
			t.Errorf("%s over %d: %d, want %d", c.mode, c.path, got, c.want)
		}
	}
}

// TestHeaderFields checks DF, identification, TOS and TTL for each option (mechanisms
// 1.2 to 1.4, 2.4).
func TestHeaderFields(t *testing.T) {
	inner := bytes.Clone(vectors.Read(t)["DBL-1"][60:])
	inner[1] = 46<<2 | header.ECT1
	header.IPv4(inner).SetChecksum()
	m, _ := encap.ModeByName("4in6in4")
	for _, c := range []struct {
		name     string
		set      func(*encap.Options)
		mtu      encap.PathMTU
		tos, tc  byte
		ttl, hop byte
		df       bool
		label    uint32
	}{
		{"defaults", func(o *encap.Options) {}, 1500, 0xb9, 0xb9, 64, 64, true, 0},
		{"fixed", func(o *encap.Options) { o.DSCP, o.TTL, o.HopLimit = 10, 1, 255 }, 1500, 10<<2 | 1, 10<<2 | 1, 1, 255, true, 0},
		{"hop limit inherited", func(o *encap.Options) { o.HopLimit = encap.InheritTTL }, 1500, 0xb9, 0xb9, 64, inner[8], true, 0},
		{"both inherited", func(o *encap.Options) { o.TTL, o.HopLimit = encap.InheritTTL, encap.InheritTTL }, 1500, 0xb9, 0xb9, inner[8], inner[8], true, 0},
		{"ECN compatibility mode", func(o *encap.Options) { o.ECNCompat = true }, 1500, 0xb8, 0xb8, 64, 64, true, 0},
		{"compatibility mode, DSCP fixed", func(o *encap.Options) { o.ECNCompat, o.DSCP = true, 63 }, 1500, 0xfc, 0xfc, 64, 64, true, 0},
		{"static MTU", func(o *encap.Options) { o.StaticMTU = true }, 1500, 0xb9, 0xb9, 64, 64, false, 0},
		{"path of 1300", func(o *encap.Options) {}, 1300, 0xb9, 0xb9, 64, 64, true, 0},
		{"path of 1299", func(o *encap.Options) {}, 1299, 0xb9, 0xb9, 64, 64, false, 0},
		{"fixed label", func(o *encap.Options) { o.FlowLabel.Fixed = 0xabcde }, 1500, 0xb9, 0xb9, 64, 64, true, 0xabcde},
	} {
		o := encap.DefaultOptions
		o.FlowLabel.Source = encap.FlowLabelFixed
		c.set(&o)
		s, err := encap.New(m.Between(router), c.mtu, o, source.New(nil, nil, false), encap.NewRecord())
		if err != nil {
			t.Fatal(err)
		}
		var ids []uint16
		for range 2 {
			got, r := encapsulate(s, inner)
			if r != drop.None {
				t.Fatal(r)
			}
			v4, v6 := header.IPv4(got), header.IPv6(got[20:])
			if v4.TOS() != c.tos || v6.TrafficClass() != c.tc || v4.TTL() != c.ttl || v6.HopLimit() != c.hop ||
				v4.MayFragment() == c.df || v6.FlowLabel() != c.label || header.Sum(v4[:20], 0) != 0xffff {
				t.Errorf("%s: %x", c.name, got[:60])
			}
			ids = append(ids, v4.ID())
		}
		if c.df && (ids[0] != 0 || ids[1] != 0) || !c.df && (ids[0] == 0 || ids[1] == 0 || ids[0] == ids[1]) {
			t.Errorf("%s: identifications %v", c.name, ids)
		}
	}
}

// TestFlowLabelHash: the flow label is the same for all packets of a flow and differs
// between flows. All fragments of a packet have the same, with or without the ports.
func TestFlowLabelHash(t *testing.T) {
	s := newStack(t, "4in6in4", router, encap.DefaultOptions)
	label := func(edit func(header.IPv4)) uint32 {
		inner := bytes.Clone(vectors.Read(t)["DBL-1"][60:])
		inner[9] = header.UDP
		edit(inner)
		header.IPv4(inner).SetChecksum()
		got, r := encapsulate(s, inner)
		if r != drop.None {
			t.Fatal(r)
		}
		return header.IPv6(got[20:]).FlowLabel()
	}
	same := label(func(ip header.IPv4) {})
	if other := label(func(ip header.IPv4) { ip[8], ip[1] = 9, 0xb8 }); other != same {
		t.Error("the label depends on more than the flow")
	}
	seen := make(map[uint32]bool)
	for port := range byte(100) {
		seen[label(func(ip header.IPv4) { ip[20] = port })] = true
	}
	if len(seen) < 95 { // of 2^20 values; two of a hundred flows may have the same
		t.Errorf("100 flows have %d labels", len(seen))
	}
	first := label(func(ip header.IPv4) { ip[6] = 0x20 })
	later := label(func(ip header.IPv4) { ip[7], ip[20] = 100, 0x77 })
	if first != later {
		t.Error("two fragments have two labels")
	}
}

func TestStackNoAllocs(t *testing.T) {
	inner := vectors.Read(t)["DBL-1"][60:]
	s := newStack(t, "4in6in4", router, encap.DefaultOptions)
	back := newStack(t, "4in6in4", peer, encap.DefaultOptions)
	buf := append(make([]byte, encap.Headroom), inner...)
	if n := testing.AllocsPerRun(1000, func() {
		pkt, r := s.Encapsulate(buf, encap.Headroom)
		if r != drop.None {
			t.Fatal(r)
		}
		if _, r := back.Decapsulate(pkt); r != drop.None {
			t.Fatal(r)
		}
		if _, r := s.Decapsulate(pkt); r == drop.None { // not ours: refused
			t.Fatal("took a foreign packet")
		}
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func TestNewRefuses(t *testing.T) {
	m, _ := encap.ModeByName("4in6in4")
	for _, e := range []encap.Endpoints{
		{},
		{Local: router.Local, Remote: router.Remote},
		{Local: router.Local6, Remote: router.Remote, Local6: router.Local6, Remote6: router.Remote6},
		{Local: router.Local, Remote: router.Remote, Local6: router.Local, Remote6: router.Remote6},
	} {
		if _, err := encap.New(m.Between(e), 1500, encap.DefaultOptions, nil, nil); err == nil {
			t.Errorf("%+v is taken", e)
		}
	}
	if _, err := encap.New(nil, 1500, encap.DefaultOptions, nil, nil); err == nil {
		t.Error("a stack without layers is taken")
	}
}
