package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Difference lists what differs between two configurations of a tunnel. Positions in the
// files do not count.
type Difference struct {
	Keys []string // of the [[tunnel]] table, in alphabetical order
	// How many peers, identified by name, are only in the new configuration, are only in
	// the old one, and differ between the two.
	PeersAdded, PeersRemoved, PeersChanged int
}

// None reports whether there is no difference.
func (d *Difference) None() bool { return len(d.Keys) == 0 }

// Difference returns how a newer configuration differs from t.
func (t *Tunnel) Difference(newer *Tunnel) (d Difference) {
	old := make(map[string]*Peer, len(t.Peers))
	for i := range t.Peers {
		old[t.Peers[i].Name] = &t.Peers[i]
	}
	for i := range newer.Peers {
		p := &newer.Peers[i]
		before := old[p.Name]
		delete(old, p.Name)
		switch {
		case before == nil:
			d.PeersAdded++
		case !before.Equal(p):
			d.PeersChanged++
		}
	}
	d.PeersRemoved = len(old)
	peers := d.PeersAdded+d.PeersRemoved+d.PeersChanged > 0
	if !peers && t.SameBesidesPeers(newer) {
		return d
	}
	// The values differ: find the keys that cause it by their text.
	for _, key := range slices.Sorted(maps.Keys(union(t.Source.Sums, newer.Source.Sums))) {
		if key != "peer" && t.Source.Sums[key] != newer.Source.Sums[key] {
			d.Keys = append(d.Keys, key)
		}
	}
	if t.FwMark != newer.FwMark && t.Source.Sums["fwmark"] == newer.Source.Sums["fwmark"] { // changed by [gateway]
		d.Keys = append(d.Keys, "fwmark")
		slices.Sort(d.Keys)
	}
	if t.Update.Key != newer.Update.Key && t.Update.Key.File == newer.Update.Key.File { // another content
		d.Keys = append(d.Keys, "update_key_file")
		slices.Sort(d.Keys)
	}
	if t.Client != newer.Client && len(d.Keys) == 0 { // another content of a file
		d.Keys = append(d.Keys, newer.Client.secretKey())
	}
	if !peers && len(d.Keys) == 0 && t.otherSecret(newer) { // the same of an automatic mode
		d.Keys = append(d.Keys, "password_file")
	}
	if peers && len(d.Keys) == 0 && !t.Hub && !newer.Hub { // another content of a file that a path names
		d.Keys = append(d.Keys, "path")
	}
	if t.Hub != newer.Hub || t.Hub && peers {
		d.Keys = append(d.Keys, "peer")
		slices.Sort(d.Keys)
	}
	if !t.Hub || !newer.Hub { // in the short form the keys show it
		d.PeersAdded, d.PeersRemoved, d.PeersChanged = 0, 0, 0
	}
	return d
}

// otherSecret reports whether a mechanism of a newer configuration, of which no key has changed,
// has another secret.
func (t *Tunnel) otherSecret(newer *Tunnel) bool {
	return !slices.EqualFunc(t.Layers, newer.Layers, func(a, b Layer) bool {
		m, ok := b.Mechanism.(Keyed)
		return !ok || m.SecretFile() == "" || reflect.DeepEqual(a.Mechanism, b.Mechanism)
	})
}

func union(a, b map[string]uint64) map[string]uint64 {
	all := maps.Clone(a)
	if all == nil {
		return b
	}
	maps.Copy(all, b)
	return all
}

// SameBesidesPeers reports whether two configurations of a tunnel are equivalent, except
// possibly for the peers.
func (t *Tunnel) SameBesidesPeers(o *Tunnel) bool {
	a, b := *t, *o
	for _, c := range []*Tunnel{&a, &b} {
		c.Peers, c.Source = nil, Source{}
	}
	return reflect.DeepEqual(a, b)
}

// Equal reports whether two configurations of a peer are equivalent.
func (p *Peer) Equal(o *Peer) bool {
	return p.Name == o.Name && SamePaths(p.Paths, o.Paths) && slices.Equal(p.InnerRemotes, o.InnerRemotes) && slices.Equal(p.Allowed, o.Allowed) && p.Probe == o.Probe
}

// SamePaths reports whether two lists of paths are equivalent.
func SamePaths(a, b []Path) bool {
	return slices.EqualFunc(a, b, func(p, o Path) bool { return p.Equal(&o) })
}

// MatchPaths returns for each path of a list the index of the path in an old list that is to
// become it, or -1 for a new one: an equivalent path or, if neither has an equivalent, that
// with the same index.
func MatchPaths(old, next []Path) []int {
	at, taken := make([]int, len(next)), make([]bool, len(old))
	for i := range next {
		at[i] = -1
		for j := range old {
			if !taken[j] && old[j].SameWay(&next[i]) {
				at[i], taken[j] = j, true
				break
			}
		}
	}
	for i := range next {
		if at[i] < 0 && i < len(old) && !taken[i] {
			at[i], taken[i] = i, true
		}
	}
	return at
}

// Assume copies the values of o to t. It does not write values that are equal.
func (t *Tunnel) Assume(o *Tunnel) {
	assume(reflect.ValueOf(t).Elem(), reflect.ValueOf(o).Elem())
	t.Peers, t.Source = o.Peers, o.Source
}

// assume copies the fields of a struct that differ, except for those that Assume copies.
func assume(into, from reflect.Value) {
	for i := range into.NumField() {
		switch f := into.Type().Field(i); {
		case f.Name == "Peers" || f.Name == "Source":
		case f.Anonymous:
			assume(into.Field(i), from.Field(i))
		case !reflect.DeepEqual(into.Field(i).Interface(), from.Field(i).Interface()):
			into.Field(i).Set(from.Field(i))
		}
	}
}

// Sections returns the names of the top-level tables, other than [[tunnel]], in which
// two configurations differ.
func (c *Config) Sections(o *Config) (names []string) {
	a, b := reflect.ValueOf(c).Elem(), reflect.ValueOf(o).Elem()
	for i := range a.NumField() {
		if f := a.Type().Field(i); f.Name != "Tunnels" && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			names = append(names, strings.ToLower(f.Name)) // a table has its field's name
		}
	}
	return names
}
