package configfile

import (
	"time"

	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/mechanism"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/section"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// Default values.
const (
	defaultKeepalive = 25 * time.Second // some address translators forget a mapping after 30 seconds
	defaultDeadAfter = 5
)

// fileDraft is a file that is being read.
type fileDraft struct {
	config.Config
	tunnels []*draft
	near    neighbours
}

// fileKeys are the top-level tables of a file. Those of sections may be checked against the
// tunnels.
var fileKeys = append([]tree.Key[*fileDraft]{{Name: "tunnel", Read: readTunnels}}, sectionsOfFile()...)

func sectionsOfFile() (rows []tree.Key[*fileDraft]) {
	for _, k := range section.All {
		rows = append(rows, tree.Key[*fileDraft]{Name: k.Name, Read: func(r *problem.Report, e tree.Entry, c *fileDraft) { k.Read(r, e, &c.Config) }})
	}
	return rows
}

// readFile reads the top-level table.
func readFile(r *problem.Report, root *tree.Value) *config.Config {
	c := &fileDraft{Config: section.Default()}
	s := keys.Read(r, "", root, fileKeys, c)
	if r.Found == 0 {
		for i, d := range c.tunnels {
			d.checkRouted(r, &c.near, func(version int) bool {
				return c.Gateway.DefaultRoute == d.Name && (version == 4 && c.Gateway.IPv4 || version == 6 && c.Gateway.IPv6)
			})
			c.Tunnels[i].Routes = d.Routes
		}
	}
	if !s.Set["tunnel"] && !s.Set["broker"] && !s.Set["lisp"] {
		r.Add(root.At, "there is no tunnel: add one, which begins with [[tunnel]]")
	}
	if c.Broker.Interface != "" {
		c.Tunnels = append(c.Tunnels, mechanism.BrokerTunnel(&c.Broker, nil, nil))
	}
	done := c.Config // a pointer into c would keep the drafts in memory
	return &done
}

// strayTable reports [[tunnel.peer]] or [[tunnel.path]] in a file without a [[tunnel]] for
// it.
func strayTable(r *problem.Report, e tree.Entry) bool {
	if e.Kind != tree.Table || len(e.Table) != 1 {
		return false
	}
	for _, name := range []string{"peer", "path"} {
		if stray, ok := e.Table[name]; ok {
			r.Add(stray.KeyAt, "[[tunnel.%s]] stands before the [[tunnel]] that it belongs to: put it below that", name)
			return true
		}
	}
	return false
}

// maxTunnels is more interfaces than a host can use in practice.
const maxTunnels = 10_000

// readTunnels reads all [[tunnel]] tables, and checks them against each other.
func readTunnels(r *problem.Report, e tree.Entry, c *fileDraft) {
	const want = "an array of tables, each of which begins with [[tunnel]]"
	if strayTable(r, e) {
		return
	}
	if e.Kind != tree.Array {
		value.RefuseType(r, e, want)
		return
	}
	if len(e.Items) == 0 {
		r.Add(e.At, "there is no tunnel: add one, which begins with [[tunnel]]")
	}
	if n := len(e.Items); n > maxTunnels {
		r.Add(e.Items[maxTunnels].At, "there are %d tunnels: at most %d are possible: name the right file with -config, or give a tunnel many peers ([[tunnel.peer]])", n, maxTunnels)
		return
	}
	var all []*draft
	for _, item := range e.Items {
		if r.Full(item.At) {
			return
		}
		if item.Kind != tree.Table {
			r.Add(item.At, "tunnel has %s in it: it must be %s", tree.KindNames[item.Kind], want)
			continue
		}
		d := readTunnel(r, item)
		c.near.check(r, d)
		all = append(all, d)
		c.Tunnels = append(c.Tunnels, d.Tunnel)
	}
	checkOwnRemotes(r, all)
	checkNesting(r, all)
	c.tunnels = all
}
