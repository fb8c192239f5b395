package configfile

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sixfour/encap"
	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/value"
)

// FuzzParse checks what Parse promises for any file: problems that can be shown and
// found in the file, or a valid configuration.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		sample, single, double, "", "\xef\xbb\xbf", "\x00", "a = \"\xff\"", "[", "[[tunnel]]", "[[tunnel]]\r\n",
		single + "mtu = 1\nmtu = 2\nmtu.a = 3\n[tunnel.mtu]\n",
		"tunnel = [{name = 'a', mode = '6in4', local = 'auto', remote = 'a.example', routes = ['::/0', ['x'], [], {}]}, 1]",
		"log.level = 'info'\nlog . \"format\" = '''\nx'''\ncontrol = {socket = \"/\\u0000\"}\n[tunnel.a.b]\n[[tunnel]]\n",
		double + "address = ['10.0.0.1/30', 'fc00::1/64', '::ffff:1.2.3.4/100', 'fe80::1%a/64']\nroutes = [\n'0.0.0.0/0', # all\n'192.0.2.2/31']\n",
		double + "ttl = 'inherit'\nhop_limit = 0x10\ndscp = 1_0\nencap_limit = 0b11\nflow_label = +7\nmtu = 65467\nfwmark = 0o17\nnetns = '/x'\n",
		double + "ecn = 'compat'\npmtu = 'static'\nmartians = 'strict'\nflow_label = inf\nttl = 1.5e3\nmtu = 2020-01-01T00:00:00Z\ndscp = nan\n",
		"[[tunnel]]\nname = 'a'\n[[tunnel.peer]]\nx = 1\n[[tunnel]]\nnmae = 'a'\nTTL = 64\n",
		single + second(double), greTunnel + "key = '1.2.3.4'\nchecksum = true\nsequence = true\nqueues = 1\n",
		over6Tunnel + "ds_lite = true\n", tunnel("gre6", "", "") + "local6 = 'auto'\nremote6 = 'a.example'\nkey = 7\n",
		stackTunnel + "stack = ['gre6', '6in4']\nlocal6 = 'fc00::1'\nremote6 = 'fc00::2'\n",
		stackTunnel + "stack = [{ mode = 'gre', local = '10.1.1.1', remote = '10.1.1.2', key = 1, sequence = true }, '4in4', {mode = '6in4'}]\n",
		tunnel("", "192.0.2.1", "") + "stack = ['6to4', '4in6']\nlocal6 = 'auto'\nremote6 = 'x'\nrelay = 'none'\n",
		tunnel("stack", "auto", "x.example") + "stack = [{ mode = '4in4', local = '10.1.1.1', remote = '10.1.1.2' }, '4in4']\n",
		tunnel("stack", "10.1.1.1", "10.1.1.2") + "stack = ['4in4', { mode = '4in4', local = 'auto', remote = 'x.example' }]\n",
		tunnel("6to4", "192.0.2.1", "") + "role = 'relay'\nrelays = ['192.88.99.1']\nclients = '0.0.0.0/0'\n",
		tunnel("6to4", "192.0.2.1", "") + "role = 'pmt'\nprovider_prefix = '2001:db8::/40'\ncustomers = ['100.64.0.0/10']\nv4_common = '100.64.0.0/10'\nmapping = 'npt'\nsubnet = 7\n",
		tunnel("6rd", "auto", "") + "prefix = '2001:db8::/32'\nmask_len = 8\nborder_relay = ['10.0.0.1', 'a.example']\n",
		tunnel("6rd", "10.0.0.2", "") + "option212 = '082020010db80000000000000000000000000a000001'\nrole = 'br'\n",
		tunnel("isatap", "auto", "") + "routers = ['isatap.example']\n" + second(tunnel("isatap", "10.0.0.1", "")) + "router = true\nprefix = '2001:db8::/64'\n",
		tunnel("6over4", "10.0.0.1", "") + "scope = 192\n" + second(tunnel("v4compat", "10.0.0.1", "")),
		asClient("ayiya", "hash = 'md5'\n") + second(asClient("heartbeat", "local = '192.0.2.7'\nprobe = '2001:db8:ff::1'\n")),
		asClient("tic", "tunnel_id = 'T1'\nstarttls = 'off'\n") + second(asClient("tsp", "user = 'u'\npassword_file = '/p'\nauth = 'plain'\nwant = 'v6v4'\nprefix_length = 56\n")),
		strings.Replace(asClient("json", "secret_file = '/p'\ntls = 'on'\nca = '/c'\nroutes = ['2000::/3']\n"), "a.example", "[2001:db8::9]:99", 1),
		hubTunnel + peer("x", "192.0.2.2", "10.0.0.0/8") + peer("y", "y.example", "10.0.0.1/32"),
		tunnel("4in6in4", "auto", "") + "local6 = 'fc00::1'\n" + peer("x", "192.0.2.2", "10.0.0.0/8', 'fd00::/8") + "remote6 = 'fc00::2'\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err != nil {
			fuzzProblems(t, data, err)
			return
		}
		if len(c.Tunnels) == 0 {
			t.Error("no tunnels")
		}
		names := map[string]bool{}
		for i := range c.Tunnels {
			fuzzTunnel(t, &c.Tunnels[i])
			names[c.Tunnels[i].Name] = true
		}
		if len(names) != len(c.Tunnels) {
			t.Error("two tunnels with one name")
		}
	})
}

func fuzzProblems(t *testing.T, data []byte, err error) {
	var problems problem.List
	if !errors.As(err, &problems) || len(problems) == 0 {
		t.Fatalf("no problems in %v", err)
	}
	fileLines := strings.Split(string(data), "\n")
	for i, p := range problems {
		switch {
		case p.File != "f":
			t.Errorf("%v: the file has another name", p)
		case p.Line < 1 || p.Line > len(fileLines):
			t.Errorf("%v: the file has %d lines", p, len(fileLines))
		case p.Column < 1 || p.Column > len(fileLines[p.Line-1])+1:
			t.Errorf("%v: the line has %d bytes", p, len(fileLines[p.Line-1]))
		case strings.ContainsAny(p.Text, "\n\r\x00\x1b") || !utf8.ValidString(p.Text):
			t.Errorf("%q is not one line of text", p.Text)
		case slices.Contains(problems[:i], p):
			t.Errorf("%v: said twice", p)
		case i > 0 && cmp.Or(cmp.Compare(problems[i-1].Line, p.Line), cmp.Compare(problems[i-1].Column, p.Column)) > 0:
			t.Errorf("%v: out of order", p)
		}
	}
}

func fuzzTunnel(t *testing.T, c *config.Tunnel) {
	expect := func(holds bool, what string) {
		if !holds {
			t.Errorf("%s: %+v", what, c)
		}
	}
	expect(c.Name != "" && len(c.Name) <= 15 && value.ValidName(c.Name), "name")
	expect(len(c.Mode.Layers) > 0, "mode")
	expect(len(c.Layers) == len(c.Mode.Layers), "layers")
	expect(c.Mode.Automatic || len(c.Peers) > 0, "peers")
	for i := range c.Peers {
		fuzzPeer(t, c, &c.Peers[i])
	}

	least := encap.MinTunnelMTU4
	for _, p := range slices.Concat(c.Address, c.Routes) {
		expect(p.IsValid() && c.Mode.Carries(value.Version(p.Addr())) && !p.Addr().Is4In6(), "a prefix")
		if p.Addr().Is6() {
			least = encap.MinTunnelMTU6
		}
	}
	for _, p := range c.Routes {
		expect(p == p.Masked(), "a route")
	}
	expect(c.MTU == 0 || least <= c.MTU && c.MTU <= encap.MaxMTU(c.Stack(&c.Peers[0], &c.Peers[0].Paths[0], netip.Addr{}, netip.Addr{}), c.Options), "mtu")

	o := c.Options
	expect(0 <= o.TTL && o.TTL <= 255 && 0 <= o.HopLimit && o.HopLimit <= 255, "ttl, hop_limit")
	expect(-1 <= o.DSCP && o.DSCP <= 63 && -1 <= o.EncapLimit && o.EncapLimit <= 255, "dscp, encap_limit")
	expect(o.FlowLabel.Fixed < 1<<20 && o.FlowLabel.Source <= encap.FlowLabelFixed, "flow_label")
	expect(o.FlowLabel.Source == encap.FlowLabelFixed || o.FlowLabel.Fixed == 0, "flow_label is not fixed")
}

func fuzzPeer(t *testing.T, c *config.Tunnel, p *config.Peer) {
	expect := func(holds bool, what string) {
		if !holds {
			t.Errorf("%s: %+v of %+v", what, p, c)
		}
	}
	named, bounded := p.Name != "", p.Allowed != nil
	expect(named == c.Hub && bounded == c.Hub, "a hub's peer")
	for i, k := range c.Mode.Layers {
		l, outermost := c.Layers[i], i == len(c.Layers)-1
		local, remote := c.LocalOf(i, &p.Paths[0]), p.Paths[0].Remote
		if !outermost {
			remote = config.Host{Addr: p.InnerRemotes[i]}
		}
		for _, a := range []netip.Addr{local, remote.Addr} {
			expect(!a.IsValid() || value.Version(a) == k.Over() && !a.Is4In6() && (a.Zone() == "" && config.NotUnicast(a) == "" || a.Zone() != "" && outermost && a.IsLinkLocalUnicast()), "an end")
			expect(!a.IsValid() || c.Netns != "" || c.FwMark != 0 || a != p.Paths[0].Remote.Addr || !slices.ContainsFunc(c.Address, func(r netip.Prefix) bool { return r.Contains(a) }) &&
				!slices.Contains(c.Routes, netip.PrefixFrom(a, a.BitLen())), "a loop")
		}
		expect(local.IsValid() || outermost, "local is auto")
		expect(remote.Name == "" || outermost, "remote is a name")
		expect((remote == config.Host{}) == (l.Mechanism != nil || p.Paths[0].Waits != ""), "no remote")
		expect(!remote.Addr.IsValid() || local != remote.Addr, "remote is local")
		if l.Mechanism != nil && local.IsValid() {
			_, err := l.Mechanism.Resolver(resolve.Site{Local: local, Own: c.Address, Strict: c.Strict})
			expect(err == nil, fmt.Sprintf("a mechanism that does not work: %v", err))
		}
		expect(l.Framing == nil || isGRE(k), "GRE")
		expect(!k.With(l.Framing).Properties().Ordered || c.Queues == 1, "an order that is lost")
	}
	for _, a := range p.Allowed {
		expect(a == a.Masked() && c.Mode.Carries(value.Version(a.Addr())), "allowed")
	}
}
