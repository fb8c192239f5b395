package peercheck

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/nft"
	"sixfour/internal/rig"
)

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

// sit returns a peer of a 6in4 tunnel.
func sit(h *subject.Host, status *api.TunnelStatus) *subject.Peer {
	mode, _ := encap.ModeByName("6in4")
	tn := &subject.Tunnel{Host: h, Config: config.Tunnel{Name: "six0", Mode: mode, Layers: make([]config.Layer, len(mode.Layers))}, Status: status}
	return &subject.Peer{Tunnel: tn, Config: &config.Peer{Paths: []config.Path{{Encap: config.NoEncapsulation}}}, Local: netip.MustParseAddr("203.0.113.10"), Remote: netip.MustParseAddr("203.0.113.20")}
}

// The kernel answers if it has a device with the name of one of its tunnels.
func TestKernelAnswers(t *testing.T) {
	ns, err := rig.New("host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	h := &subject.Host{Options: subject.Options{Paths: subject.Paths{Modules: t.TempDir()}.OrDefault()}}
	check := func(status *api.TunnelStatus) (f finding.Finding) {
		t.Helper()
		if err := ns.Do(func() error {
			p := sit(h, status)
			f = KernelAnswers(t.Context(), p)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return f
	}
	running := &api.TunnelStatus{}
	if f := check(running); f.Verdict != finding.Pass {
		t.Errorf("without a module: %+v", f)
	}
	if err := rig.Veth(ns, "sit0", ns, "other", 1500); err != nil {
		t.Fatal(err)
	}
	if f := check(nil); f.Verdict != finding.Pass || !strings.Contains(f.Text, "device sit0") {
		t.Errorf("without a daemon: %+v", f)
	}
	if f := check(running); f.Verdict != finding.Fail || !strings.HasPrefix(f.Remedy, "nft 'add table ip sixfour") {
		t.Errorf("with a daemon that does nothing: %+v", f)
	}
	var suppressor *nft.Suppressor
	if err := ns.Do(func() (err error) {
		if suppressor, err = nft.OpenSuppressor(); err == nil {
			err = suppressor.Suppress([]nft.Endpoint{{Local: netip.MustParseAddr("203.0.113.10"), Protocol: header.ProtoIPv6}})
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer suppressor.Close()
	if f := check(running); f.Verdict != finding.Pass || !strings.Contains(f.Text, "suppresses the answers") {
		t.Errorf("with a suppressor: %+v", f)
	}
}

func TestState(t *testing.T) {
	h := &subject.Host{}
	for _, test := range []struct {
		state  *api.PeerStatus
		failed []string
		want   finding.Verdict
	}{
		{nil, nil, finding.Skip},
		{&api.PeerStatus{State: api.State{Phase: api.Up}}, nil, finding.Pass},
		{&api.PeerStatus{State: api.State{Phase: api.Waiting, Detail: "rain"}}, nil, finding.Fail},
		{&api.PeerStatus{State: api.State{Phase: api.Waiting, Detail: "rain"}}, []string{"route"}, finding.Skip},
	} {
		p := sit(h, nil)
		p.Status, p.Failed = test.state, test.failed
		if f := State(t.Context(), p); f.Verdict != test.want {
			t.Errorf("%+v after %v: %+v", test.state, test.failed, f)
		}
	}
}
