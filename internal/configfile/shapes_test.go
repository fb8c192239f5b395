package configfile

import (
	"net/netip"
	"reflect"
	"testing"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/internal/config/mechanism"
)

// one parses a file with one tunnel.
func one(t *testing.T, file string) *config.Tunnel {
	t.Helper()
	c, err := Parse("f", []byte(file))
	if err != nil {
		t.Fatalf("%s\n%v", file, err)
	}
	forget(c)
	return &c.Tunnels[0]
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestLayers(t *testing.T) {
	gre := framing.GRE{Keyed: true, Key: 0x01020304, Checksum: true, Sequence: true}
	for _, row := range []struct {
		file   string
		kinds  []encap.Kind
		layers []config.Layer
		peer   config.Peer
	}{
		{over6Tunnel, []encap.Kind{encap.FourInSix}, layers(), aPeer("2001:db8::1", "2001:db8::2")},
		{tunnel("6in6", "", "") + "local6 = 'auto'\nremote6 = 'a.example'\n", []encap.Kind{encap.SixInSix}, layers(), aPeer("auto", "a.example")},
		{greTunnel + "okey = '0.0.0.2'\nikey = 1\n", []encap.Kind{encap.GREInFour}, []config.Layer{{Framing: framing.GRE{Keyed: true, Key: 2, Apart: true, InKeyed: true, InKey: 1}}}, aPeer("192.0.2.1", "192.0.2.2")},
		{greTunnel + "ikey = 1\nokey = 1\n", []encap.Kind{encap.GREInFour}, []config.Layer{{Framing: framing.GRE{Keyed: true, Key: 1}}}, aPeer("192.0.2.1", "192.0.2.2")},
		{greTunnel + "ikey = 1\n", []encap.Kind{encap.GREInFour}, []config.Layer{{Framing: framing.GRE{Apart: true, InKeyed: true, InKey: 1}}}, aPeer("192.0.2.1", "192.0.2.2")},
		{greTunnel + "okey = 1\n", []encap.Kind{encap.GREInFour}, []config.Layer{{Framing: framing.GRE{Keyed: true, Key: 1, Apart: true}}}, aPeer("192.0.2.1", "192.0.2.2")},
		{greTunnel + "key = '1.2.3.4'\nchecksum = true\nsequence = true\n", []encap.Kind{encap.GREInFour},
			[]config.Layer{{Framing: gre}}, aPeer("192.0.2.1", "192.0.2.2")},
		{stackTunnel + "stack = ['gre6', '6in4']\nlocal6 = 'fc00::1'\nremote6 = 'fc00::2'\nkey = 7\n", []encap.Kind{encap.GREInSix, encap.SixInFour},
			[]config.Layer{{Local: addr("fc00::1"), Framing: framing.GRE{Keyed: true, Key: 7}}, {}}, aPeer("192.0.2.1", "fc00::2", "192.0.2.2")},
		// An item with GRE options has only its own.
		{stackTunnel + "stack = [{ mode = 'gre', local = '10.1.1.1', remote = '10.1.1.2', checksum = true }, 'gre']\nkey = 0\n",
			[]encap.Kind{encap.GREInFour, encap.GREInFour},
			[]config.Layer{{Local: addr("10.1.1.1"), Framing: framing.GRE{Checksum: true}}, {Framing: framing.GRE{Keyed: true}}}, aPeer("192.0.2.1", "10.1.1.2", "192.0.2.2")},
		{stackTunnel + "stack = ['4in6in4', { mode = '4in4', local = '10.1.1.1', remote = 'a.example' }]\nlocal6 = 'fc00::1'\nremote6 = 'fc00::2'\n",
			[]encap.Kind{encap.FourInSix, encap.SixInFour, encap.FourInFour}, layers("fc00::1", "192.0.2.1"), aPeer("10.1.1.1", "fc00::2", "192.0.2.2", "a.example")},
	} {
		got := one(t, row.file)
		if !reflect.DeepEqual(got.Mode.Layers, row.kinds) || !reflect.DeepEqual(got.Layers, row.layers) || !reflect.DeepEqual(got.Peers, []config.Peer{row.peer}) || got.Hub {
			t.Errorf("%s\ngot  %v %+v %+v\nwant %v %+v %+v", row.file, got.Mode.Layers, got.Layers, got.Peers, row.kinds, row.layers, row.peer)
		}
	}
}

func TestHub(t *testing.T) {
	got := one(t, tunnel("4in6in4", "auto", "")+"local6 = 'fc00::1'\n"+
		peer("a", "192.0.2.2", "10.0.0.0/8")+"remote6 = 'fc00::2'\n"+peer("b", "b.example", "10.1.0.0/16', 'fd00::/8")+"remote6 = 'fc00::2'\n")
	a, b := aPeer("auto", "fc00::2", "192.0.2.2"), aPeer("auto", "fc00::2", "b.example")
	a.Name, a.Allowed = "a", prefixes("10.0.0.0/8")
	b.Name, b.Allowed = "b", prefixes("10.1.0.0/16", "fd00::/8")
	want := []config.Peer{a, b}
	if !reflect.DeepEqual(got.Peers, want) || !got.Hub {
		t.Errorf("got  %+v\nwant %+v", got.Peers, want)
	}
	stack := got.Stack(&got.Peers[1], &got.Peers[1].Paths[0], addr("192.0.2.1"), addr("192.0.2.3"))
	if want := []encap.Layer{
		{Kind: encap.FourInSix, Local: addr("fc00::1"), Remote: addr("fc00::2")},
		{Kind: encap.SixInFour, Local: addr("192.0.2.1"), Remote: addr("192.0.2.3")},
	}; !reflect.DeepEqual(stack, want) {
		t.Errorf("got  %+v\nwant %+v", stack, want)
	}
}

func TestDSLiteB4(t *testing.T) {
	for file, want := range map[string][2][]netip.Prefix{
		over6Tunnel + "ds_lite = true\n":                                        {prefixes("192.0.0.2/29"), prefixes("0.0.0.0/0")},
		over6Tunnel + "ds_lite = true\naddress = ['10.0.0.1/32']\n":             {prefixes("10.0.0.1/32"), prefixes("0.0.0.0/0")},
		over6Tunnel + "ds_lite = true\nroutes = []\n":                           {prefixes("192.0.0.2/29"), nil},
		over6Tunnel + "ds_lite = false\n":                                       {nil, nil},
		over6Tunnel + "ds_lite = true\naddress = []\nroutes = ['10.0.0.0/8']\n": {nil, prefixes("10.0.0.0/8")},
	} {
		if got := one(t, file); !reflect.DeepEqual([2][]netip.Prefix{got.Address, got.Routes}, want) {
			t.Errorf("%s\ngot %v and %v, want %v", file, got.Address, got.Routes, want)
		}
	}
}

// TestAutomatic has every key of every mechanism.
func TestAutomatic(t *testing.T) {
	const local = "192.0.2.1"
	domain := resolve.SixRD{Prefix: netip.MustParsePrefix("2001:db8::/32"), MaskLen: 8, Relays: hosts("10.0.0.1"), Role: resolve.RoleCE}
	for _, row := range []struct {
		mode, keys string
		want       resolve.Mechanism
	}{
		{"6to4", "", resolve.SixToFour{Role: resolve.RoleRouter, Relay: mechanism.AnycastRelay}},
		{"6to4", "role = 'host'\nrelay = 'relay.example'\nrelays = ['192.0.2.9', '198.51.100.0/24']\n",
			resolve.SixToFour{Role: resolve.RoleHost, Relay: config.Host{Name: "relay.example"}, Relays: prefixes("192.0.2.9/32", "198.51.100.0/24")}},
		{"6to4", "relay = 'none'\n", resolve.SixToFour{Role: resolve.RoleRouter}},
		{"6to4", "role = 'relay'\nclients = ['0.0.0.0/0']\n", resolve.SixToFour{Role: resolve.RoleRelay, Clients: prefixes("0.0.0.0/0")}},
		{"6to4", "role = 'return'\nsources = '2001:db8::/32'\n", resolve.SixToFour{Role: resolve.RoleReturn, Sources: prefixes("2001:db8::/32")}},
		{"6to4", "role = 'pmt'\nprovider_prefix = '2001:db8::/32'\ncustomers = ['100.64.0.0/10']\n",
			resolve.PMT{ProviderPrefix: domain.Prefix, Customers: prefixes("100.64.0.0/10"), Mode: resolve.PMTRewrite}},
		{"6to4", "role = 'pmt'\nprovider_prefix = '2001:db8::/40'\ncustomers = ['100.64.0.0/10']\nv4_common = '100.64.0.0/10'\nmapping = 'npt'\nsubnet = 7\n",
			resolve.PMT{ProviderPrefix: netip.MustParsePrefix("2001:db8::/40"), Common: netip.MustParsePrefix("100.64.0.0/10"), Customers: prefixes("100.64.0.0/10"), Subnet: 7, Mode: resolve.PMTNPT}},
		{"6rd", "prefix = '2001:db8::/32'\nmask_len = 8\nborder_relay = '10.0.0.1'\n", domain},
		{"6rd", "option212 = 'd4 16 08 20 20010db8000000000000000000000000 0a000001'\n", domain},
		{"6rd", "option212 = '082020010db80000000000000000000000000a000001'\nrole = 'br'\n",
			resolve.SixRD{Prefix: domain.Prefix, MaskLen: 8, Relays: domain.Relays, Role: resolve.RoleBR}},
		{"6rd", "prefix = '2001:db8::/32'\n", resolve.SixRD{Prefix: domain.Prefix, Role: resolve.RoleBR}},
		{"isatap", "routers = ['isatap.example', '192.0.2.9']\n", resolve.ISATAP{Routers: hosts("isatap.example", "192.0.2.9")}},
		{"isatap", "router = true\nprefix = ['2001:db8::/64', '2001:db8:1::/64']\n", resolve.ISATAP{Router: true, Prefixes: prefixes("2001:db8::/64", "2001:db8:1::/64")}},
		{"v4compat", "", resolve.V4Compat{}},
		{"6over4", "", resolve.SixOverFour{Scope: 192}},
		{"6over4", "scope = 193\n", resolve.SixOverFour{Scope: 193}},
	} {
		got := one(t, tunnel(row.mode, local, "")+row.keys)
		if want := []config.Layer{{Mechanism: row.want}}; !reflect.DeepEqual(got.Layers, want) || !got.Mode.Automatic {
			t.Errorf("%s %s\ngot  %+v\nwant %+v", row.mode, row.keys, got.Layers, want)
		}
		if want := []config.Peer{{Paths: []config.Path{{Encap: "none", Local: addr(local)}}}}; !reflect.DeepEqual(got.Peers, want) {
			t.Errorf("%s: peers %+v", row.mode, got.Peers)
		}
		if _, err := got.Layers[0].Mechanism.Resolver(resolve.Site{Local: addr(local)}); err != nil {
			t.Errorf("%s %s\n%v", row.mode, row.keys, err)
		}
	}
}

// TestMechanismOfEachMode: each automatic mode has a row, and each row has a mode.
func TestMechanismOfEachMode(t *testing.T) {
	rows := map[string]bool{}
	for _, m := range mechanism.Rows {
		rows[m.Mode] = true
	}
	for _, m := range encap.Modes {
		if rows[m.Name] != m.Automatic {
			t.Errorf("mode %s: automatic is %v, there is a mechanism: %v", m.Name, m.Automatic, rows[m.Name])
		}
		delete(rows, m.Name)
	}
	if len(rows) > 0 {
		t.Errorf("without a mode: %v", rows)
	}
}

func TestSequenceHasOneQueue(t *testing.T) {
	if got := one(t, greTunnel+"sequence = true\n"); got.Queues != 1 {
		t.Errorf("%d queues", got.Queues)
	}
	if got := one(t, greTunnel); got.Queues != 0 {
		t.Errorf("%d queues", got.Queues)
	}
}
