package gateway

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"go.uber.org/zap"

	"sixfour/encap/mape"
	"sixfour/internal/api"
	"sixfour/internal/config"
)

func tunnelState(name string, index int, path bool) TunnelState {
	return TunnelState{Tunnel: Tunnel{Interface: name, IPv4: true}, Index: index, HasPath: path}
}

// The default route leads into its tunnel from the first time that the tunnel has a path
// until the configuration no longer has the route.
func TestApplierTakesDefaultRoute(t *testing.T) {
	a := NewApplier(config.Gateway{DefaultRoute: "six0"}, zap.NewNop())
	other := tunnelState("six1", 8, true)
	other.Mark = 0x20
	for _, c := range []struct {
		what     string
		t        TunnelState
		complete bool
		index    int // of the default route; -1: there is none
	}{
		{"no path yet", tunnelState("six0", 7, false), false, -1},
		{"a path", tunnelState("six0", 7, true), true, 7},
		{"the path is gone", tunnelState("six0", 7, false), true, 7},
		{"the interface is gone", tunnelState("six0", 0, false), true, 0},
	} {
		w, complete := a.wanted([]TunnelState{c.t, other})
		index := -1
		if w.Default != nil {
			index = w.Default.Index
			if !slices.Equal(w.Default.Marks, []uint32{0x20}) || w.Default.Mark != config.GatewayMark {
				t.Errorf("%s: marks %#x, mark %#x", c.what, w.Default.Marks, w.Default.Mark)
			}
		}
		if complete != c.complete || index != c.index || len(w.Tunnels) != 2 {
			t.Errorf("%s: complete %v, index %d, %d tunnels", c.what, complete, index, len(w.Tunnels))
		}
	}
	if a.MustYield() {
		t.Error("the default route must be given up though it is configured")
	}
	a.SetConfig(config.Gateway{})
	if !a.MustYield() {
		t.Error("the default route need not be given up though it is no longer configured")
	}
	if a.Sync(nil); a.MustYield() {
		t.Error("the default route must be given up again")
	}
}

// A tunnel in another network namespace is not masqueraded, but its mark is known.
func TestApplierElsewhere(t *testing.T) {
	a := NewApplier(config.Gateway{DefaultRoute: "six0"}, zap.NewNop())
	far := tunnelState("six1", 3, true)
	far.Elsewhere, far.Mark = true, 5
	w, _ := a.wanted([]TunnelState{tunnelState("six0", 7, true), far})
	if len(w.Tunnels) != 1 || !slices.Equal(w.Default.Marks, []uint32{5}) {
		t.Errorf("%d tunnels, marks %v", len(w.Tunnels), w.Default.Marks)
	}
}

func TestApplierWaits(t *testing.T) {
	a := NewApplier(config.Gateway{DefaultRoute: "six0"}, zap.NewNop())
	if got, want := a.Waits(), "tunnel six0, for the default route"; got != want {
		t.Errorf("waits for %q, not %q", got, want)
	}
	a.report(Done{}, errors.Join(errors.New("one"), errors.New("two")))
	if got, want := a.Waits(), "one; and two"; got != want {
		t.Errorf("waits for %q, not %q", got, want)
	}
	if got := a.report(Done{Restored: []string{"rule"}}, nil); got != "another program had removed the gateway's rule: restored" {
		t.Errorf("restored: %q", got)
	}
	if a.SetConfig(config.Gateway{}); a.Waits() != "" {
		t.Errorf("waits for %q though nothing is configured", a.Waits())
	}
}

func TestGatewayStatus(t *testing.T) {
	cfg := &config.Gateway{DefaultRoute: "six0", Masquerade: []string{"eth0"}}
	for _, c := range []struct {
		what        string
		w           Wanted
		done        Done
		err         error
		route, masq api.GatewayState
	}{
		{"no path", Wanted{}, Done{}, nil, api.GatewayWaiting, api.GatewayActive},
		{"no interface", Wanted{Default: &Default{}}, Done{Missing: []string{"eth0"}}, nil, api.GatewayWaiting, api.GatewayWaiting},
		{"active", Wanted{Default: &Default{Index: 4}}, Done{}, nil, api.GatewayActive, api.GatewayActive},
		{"failure of both", Wanted{Default: &Default{Index: 4}}, Done{}, errors.New("no netlink"), api.GatewayFailed, api.GatewayFailed},
		{"failure of one", Wanted{Default: &Default{Index: 4}}, Done{MasqueradeErr: errors.New("no nftables")}, errors.New("no nftables"), api.GatewayActive, api.GatewayFailed},
	} {
		s := newStatus(cfg, c.w, c.done, c.err)
		if s.DefaultRoute.State != c.route || s.Masquerade.State != c.masq {
			t.Errorf("%s: default route %s, masquerading %s", c.what, s.DefaultRoute.State, s.Masquerade.State)
		}
	}
}

// The ports of a shared address are in the status, without a [gateway] section, and a tunnel in
// another network namespace has none.
func TestApplierShare(t *testing.T) {
	namespace(t)
	a := NewApplier(config.Gateway{}, zap.NewNop())
	defer a.Close()
	s := tunnelState("six0", 7, true)
	s.Share = &Share{Interface: "six0", Address: netip.MustParseAddr("192.0.2.18"), Ports: mape.Ports{Offset: 6, PSIDLen: 8, PSID: 0x34}}
	if _, worked := a.Sync([]TunnelState{s}); !worked {
		t.Error("the gateway does not work")
	}
	st := a.Status()
	if st == nil || len(st.Shares) != 1 {
		t.Fatalf("status: %+v", st)
	}
	if x := st.Shares[0]; x.State != api.GatewayActive || x.Address != "192.0.2.18" || x.PortCount != 252 || len(x.Ports) != 63 || x.Ports[0] != "1232-1235" {
		t.Errorf("%+v", x)
	}
	s.Share.Ports.Offset = 9 // ports have 16 bits
	if _, worked := a.Sync([]TunnelState{s}); !worked || a.Status().Shares[0].State != api.GatewayFailed || a.Waits() == "" {
		t.Errorf("worked %v, %+v, waits for %q", worked, a.Status().Shares[0], a.Waits())
	}
	s.Elsewhere = true
	if a.Sync([]TunnelState{s}); a.Status() != nil || a.Waits() != "" {
		t.Errorf("after the end: %+v, %q", a.Status(), a.Waits())
	}
}
