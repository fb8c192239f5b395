package configfile

import (
	"net/netip"
	"slices"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/config/client"
	"sixfour/internal/config/mechanism"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
)

// clientKeys returns the keys of all modes with a session: server, which decides about the IP
// version of local, or all others.
func clientKeys(server bool) (rows []tree.Key[*draft]) {
	var names []string
	for _, m := range client.Rows {
		names = append(names, m.Keys...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if server == (name == "server") {
			rows = append(rows, tree.Key[*draft]{Name: name, Read: readClientKey})
		}
	}
	return rows
}

// readClientKey reads a key that only some of the modes with a session have.
func readClientKey(r *problem.Report, e tree.Entry, d *draft) {
	row := client.ByMode(d.Mode.Name)
	switch {
	case row == nil:
		readMechanismKey(r, e, d)
	case slices.Contains(row.Keys, e.Name):
		if d.client.Read == nil {
			d.client = row.Begin()
		}
		d.client.Read(e.Name, r, e)
		if a, err := netip.ParseAddrPort(e.Text); e.Name == "server" && d.Mode.Name != "tic" && (isIPv6(e.Text) || err == nil && a.Addr().Is6()) {
			d.Mode = d.Mode.To6()
			d.layers[0].kind = d.Mode.Layers[0]
		}
	default:
		r.Add(e.KeyAt, "%s contradicts %s, which has no such key: leave it out, or choose mode %s", e.Name, d.what(), problem.Alternatives(problem.QuoteAll(append(mechanism.With(e.Name), client.With(e.Name)...))))
	}
}

func isIPv6(text string) bool {
	a, err := netip.ParseAddr(text)
	return err == nil && a.Is6()
}

// finishClient sets the path to the server and what the mode implies.
func (d *draft) finishClient(r *problem.Report) {
	row := client.ByMode(d.Mode.Name)
	if row == nil {
		return
	}
	if d.client.Finish == nil {
		d.client = row.Begin()
	}
	d.Client = d.client.Finish(r, d.clientTunnel())
	for _, name := range []string{"remote", "path", "peer"} {
		if at, given := d.Source.Keys[name]; given && d.known() {
			r.Add(at, "%s contradicts %s, whose only path leads to server: leave it out", name, d.what())
		}
	}
	pair := d.pair(d.layers[0].kind.Over())
	path := d.Client.Path()
	pair.remote = end{Host: path.Remote, key: "server", at: d.at("server"), readable: true}
	if pair.local.key == "" {
		pair.local = end{key: "local", at: d.Source.Header, readable: true}
	}
	e := slices.IndexFunc(config.Encapsulations, func(e config.Encapsulation) bool { return e.Name == path.Encap })
	d.paths, d.peers, d.Hub = []*pathDraft{{Path: path, encapsulation: &config.Encapsulations[e], in: d}}, nil, false
	if d.Mode.Name == "json" && !d.state.Set["mtu"] {
		d.MTU = encap.MinTunnelMTU6 // old servers take one read for one packet
	}
	if d.Mode.Name == "json" && !d.state.Set["probe"] { // TCP tells whether the server is there
		if at, given := d.Source.Keys["keepalive"]; given && d.Keepalive != 0 {
			r.Add(at, "keepalive needs probe in mode \"json\", whose server does not say which address it has inside the tunnel: set probe to that, or leave keepalive out")
		}
		d.Keepalive = 0
	}
	a := d.Client.Identity()
	if a.IsValid() && !d.state.Set["address"] {
		d.Address, d.addressAt = []netip.Prefix{netip.PrefixFrom(a, 64)}, []problem.Pos{d.at("identity")}
	}
	if far := netip.PrefixFrom(a, 64).Masked().Addr().Next(); a.IsValid() && !d.state.Set["probe"] && a != far {
		d.probe = far // the server's end, by the custom of all brokers
	}
}

// clientTunnel returns what is known of the tunnel.
func (d *draft) clientTunnel() *client.Tunnel {
	return &client.Tunnel{State: d.state, Header: d.Source.Header, Values: d.Source.Keys}
}

// at returns the position of a key's value, or of the table if it does not have the key.
func (d *draft) at(name string) problem.Pos {
	if at, ok := d.Source.Keys[name]; ok {
		return at
	}
	return d.Source.Header
}
