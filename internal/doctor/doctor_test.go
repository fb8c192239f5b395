package doctor

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/encap/resolve"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/configfile"
	"sixfour/internal/nft"
	"sixfour/internal/probe"
	"sixfour/internal/rig"
)

// A check that panics affects only itself, and does not change the subject.
func TestPanic(t *testing.T) {
	p := &peer{}
	f := attempt(t.Context(), p, func(p *peer, _ context.Context) finding {
		p.failed = append(p.failed, "x")
		var none *config.Peer
		return pass("%s", none.Name)
	})
	if f.verdict != Skip || !strings.Contains(f.text, "nil pointer") || !strings.Contains(f.text, "doctor_test.go:") || len(p.failed) != 0 {
		t.Errorf("%+v, %v", f, p.failed)
	}
}

// The same for a check that hangs.
func TestHang(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	over := make(chan struct{})
	p := &peer{}
	f := attempt(ctx, p, func(p *peer, _ context.Context) finding {
		p.failed = append(p.failed, "x")
		<-over
		return pass("")
	})
	close(over)
	if f.verdict != Skip || len(p.failed) != 0 {
		t.Errorf("%+v, %v", f, p.failed)
	}
}

func TestTun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tun")
	check := func(path string) finding {
		h := &host{o: Options{Paths: Paths{Tun: path}.orDefault()}}
		return h.checkTun(t.Context())
	}
	if f := check(file); f.verdict != Fail || !strings.HasPrefix(f.mend, "modprobe tun; mkdir -p "+filepath.Dir(file)+"; mknod "+file+" c 10 200") {
		t.Errorf("missing: %+v", f)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f := check(file); f.verdict != Fail || !strings.HasPrefix(f.mend, "rm "+file) {
		t.Errorf("a file: %+v", f)
	}
	if f := check(""); f.verdict != Pass {
		t.Errorf("the device: %+v", f)
	}
}

func TestKernelVersion(t *testing.T) {
	for _, test := range []struct {
		release      string
		major, minor int
		ok           bool
	}{
		{"6.18.44-fc-v669", 6, 18, true},
		{"4.14", 4, 14, true},
		{"5.10-rc1", 5, 10, true},
		{"six", 0, 0, false},
		{"6.x", 6, 0, false},
	} {
		if major, minor, ok := kernelVersion(test.release); major != test.major || minor != test.minor || ok != test.ok {
			t.Errorf("%q: %d %d %v", test.release, major, minor, ok)
		}
	}
}

func TestConfigOf(t *testing.T) {
	for _, test := range []struct {
		line []string
		want string
	}{
		{[]string{"sixfourd"}, ""},
		{[]string{"sixfourd", "-config", "/a"}, "/a"},
		{[]string{"sixfourd", "--config", "/a"}, "/a"},
		{[]string{"sixfourd", "-log-level", "debug", "--config=/a b"}, "/a b"},
		{[]string{"sixfourd", "-config"}, ""},
	} {
		if got := configOf(test.line); got != test.want {
			t.Errorf("%q: %q", test.line, got)
		}
	}
}

func TestKernelTunnel(t *testing.T) {
	local, remote := net.IPv4(203, 0, 113, 10), net.IPv4(203, 0, 113, 20)
	for _, test := range []struct {
		link netlink.Link
		want byte
	}{
		{&netlink.Sittun{Local: local, Remote: remote}, header.ProtoIPv6},
		{&netlink.Iptun{Local: local, Remote: remote}, header.ProtoIPv4},
		{&netlink.Gretun{Local: local, Remote: remote}, header.GRE},
		{&netlink.Ip6tnl{Local: local, Remote: remote, Proto: header.ProtoIPv4}, header.ProtoIPv4},
		{&netlink.Dummy{}, 0},
	} {
		a, b, protocol := kernelTunnel(test.link)
		if protocol != test.want || protocol != 0 && (a.String() != "203.0.113.10" || b.String() != "203.0.113.20") {
			t.Errorf("%T: %v %v %d", test.link, a, b, protocol)
		}
	}
}

// Another daemon's GRE tunnel takes the packets of a peer if their keys are the same.
func TestSharedPackets(t *testing.T) {
	gre := func(text string) config.Tunnel {
		t.Helper()
		cfg, err := configfile.Parse("file", []byte("[[tunnel]]\nname = 'six0'\nmode = 'gre'\nlocal = '203.0.113.10'\nremote = '203.0.113.20'\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Tunnels[0]
	}
	for _, test := range []struct {
		ours, theirs string
		want         bool
	}{
		{"", "", true},
		{"key = 1\n", "key = 1\n", true},
		{"key = 1\n", "key = 2\n", false},
		{"key = 0\n", "", false},
	} {
		ours := gre(test.ours)
		p := &peer{t: &tunnel{cfg: ours}, cfg: &ours.Peers[0], remote: netip.MustParseAddr("203.0.113.20")}
		if got := p.sharesPackets(gre(test.theirs)); got != test.want {
			t.Errorf("%q and %q: %v, want %v", test.ours, test.theirs, got, test.want)
		}
	}
}

// sit returns a peer of a 6in4 tunnel.
func sit(h *host, status *api.TunnelStatus) *peer {
	mode, _ := encap.ModeByName("6in4")
	tn := &tunnel{h: h, cfg: config.Tunnel{Name: "six0", Mode: mode}, status: status}
	return &peer{t: tn, local: netip.MustParseAddr("203.0.113.10"), remote: netip.MustParseAddr("203.0.113.20")}
}

// The kernel answers if it has a device with the name of one of its tunnels.
func TestKernelAnswers(t *testing.T) {
	ns, err := rig.New("host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	h := &host{o: Options{Paths: Paths{Modules: t.TempDir()}.orDefault()}}
	check := func(status *api.TunnelStatus) (f finding) {
		t.Helper()
		if err := ns.Do(func() error {
			f = sit(h, status).checkKernelAnswers(t.Context())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return f
	}
	running := &api.TunnelStatus{}
	if f := check(running); f.verdict != Pass {
		t.Errorf("without a module: %+v", f)
	}
	if err := rig.Veth(ns, "sit0", ns, "other", 1500); err != nil {
		t.Fatal(err)
	}
	if f := check(nil); f.verdict != Pass || !strings.Contains(f.text, "device sit0") {
		t.Errorf("without a daemon: %+v", f)
	}
	if f := check(running); f.verdict != Fail || !strings.HasPrefix(f.mend, "nft 'add table ip sixfour") {
		t.Errorf("with a daemon that does nothing: %+v", f)
	}
	var shield *nft.Suppressor
	if err := ns.Do(func() (err error) {
		if shield, err = nft.OpenSuppressor(); err == nil {
			err = shield.Suppress([]nft.End{{Local: netip.MustParseAddr("203.0.113.10"), Protocol: header.ProtoIPv6}})
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer shield.Close()
	if f := check(running); f.verdict != Pass || !strings.Contains(f.text, "keeps that back") {
		t.Errorf("with a shield: %+v", f)
	}
}

func TestState(t *testing.T) {
	h := &host{}
	for _, test := range []struct {
		state  *api.PeerStatus
		failed []string
		want   Verdict
	}{
		{nil, nil, Skip},
		{&api.PeerStatus{State: api.State{Phase: api.Up}}, nil, Pass},
		{&api.PeerStatus{State: api.State{Phase: api.Waiting, Detail: "rain"}}, nil, Fail},
		{&api.PeerStatus{State: api.State{Phase: api.Waiting, Detail: "rain"}}, []string{"route"}, Skip},
	} {
		p := sit(h, nil)
		p.status, p.failed = test.state, test.failed
		if f := p.checkState(t.Context()); f.verdict != test.want {
			t.Errorf("%+v after %v: %+v", test.state, test.failed, f)
		}
	}
}

func TestMeaning(t *testing.T) {
	for _, test := range []struct {
		err  icmp.Error
		want string
	}{
		{icmp.Error{Version: 4, Type: 3, Code: 4, Arg: 1400}, "MTU of 1400"},
		{icmp.Error{Version: 4, Type: 11}, "hops"},
		{icmp.Error{Version: 4, Type: 3, Code: 2}, "no tunnel"},
		{icmp.Error{Version: 4, Type: 3, Code: 13}, "firewall"},
		{icmp.Error{Version: 4, Type: 3, Code: 6}, "type 3 code 6"},
		{icmp.Error{Version: 6, Type: 2, Arg: 1300}, "MTU of 1300"},
		{icmp.Error{Version: 6, Type: 3}, "hops"},
		{icmp.Error{Version: 6, Type: 1, Code: 1}, "firewall"},
	} {
		if got := meaning(test.err); !strings.Contains(got, test.want) {
			t.Errorf("%+v: %q, want %q", test.err, got, test.want)
		}
	}
}

// allChecks returns all checks in the order in which they run.
func allChecks() []Check {
	var all []Check
	for _, c := range hostChecks {
		all = append(all, c.Check)
	}
	for _, c := range tunnelChecks {
		all = append(all, c.Check)
	}
	for _, c := range peerChecks {
		all = append(all, c.Check)
	}
	for _, c := range gatewayChecks {
		all = append(all, c.Check)
	}
	return all
}

// The manual's page has each check, in the same words.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	page, seen := string(b), 0
	for _, c := range allChecks() {
		row := "| `" + c.ID + "` | " + c.What + " | " + c.Why + " |"
		if !strings.Contains(page, row) {
			t.Errorf("docs/doctor.md lacks the row\n%s", row)
		}
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "| `") && !strings.HasPrefix(line, "| `doctor") {
			seen++
		}
	}
	if seen != len(allChecks()) {
		t.Errorf("docs/doctor.md has %d checks, of %d", seen, len(allChecks()))
	}
}

// listening is an asker without sockets.
func listening(kind encap.Kind) *asker {
	l := encap.Layer{Kind: kind, Local: netip.MustParseAddr("203.0.113.10"), Remote: netip.MustParseAddr("203.0.113.20")}
	if kind.Over() == 6 {
		l.Local, l.Remote = netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("2001:db8::20")
	}
	stack, err := encap.New([]encap.Layer{l}, 65535, encap.DefaultOptions, resolve.NewSources(nil, nil, false), encap.NewRecord())
	if err != nil {
		panic(err)
	}
	return &asker{
		layers: []encap.Layer{l}, stack: stack, local: l.Local, remote: l.Remote,
		id: probe.Identity{ID: 7, Cookie: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}, waiting: make(map[uint16]*question),
	}
}

// No packet causes a panic, and none without our identity counts as an answer.
func FuzzHear(f *testing.F) {
	kinds := []encap.Kind{encap.SixInFour, encap.FourInFour, encap.GREInFour, encap.FourInSix, encap.SixInSix, encap.GREInSix}
	for i, kind := range kinds {
		a := listening(kind)
		q := &question{way: inside, local: netip.MustParseAddr("10.0.0.1"), remote: netip.MustParseAddr("10.0.0.2")}
		if !kind.Carries(4) {
			q.local, q.remote = netip.MustParseAddr("fc00::1"), netip.MustParseAddr("fc00::2")
		}
		for _, w := range []way{inside, keepalive, outside} {
			if _, ok := kind.Framing().(encap.Keepaliver); w == keepalive && !ok {
				continue
			}
			q.way = w
			b, err := a.build(q, 1)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), b)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		a := listening(kinds[int(kind)%len(kinds)])
		q := &question{replies: make(chan reply, 4)}
		q.packet, _ = a.build(&question{way: outside}, 1)
		a.waiting[1] = q
		cookie := string(a.id.Cookie[:])
		known := strings.Contains(string(b), cookie)
		a.hear(slices.Clone(b))
		a.hearICMP(slices.Clone(b))
		for len(q.replies) > 0 {
			if r := <-q.replies; r.answer && !known {
				t.Errorf("% x is an answer", b)
			}
		}
	})
}
