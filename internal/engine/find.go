package engine

import (
	"fmt"
	"strings"
)

// candidates is the most peers that an error lists.
const candidates = 10

// find returns the peer of a name: "TUNNEL" for the only peer of a tunnel,
// "TUNNEL/PEER", or the name of a peer if only one tunnel has it.
func (e *Engine) find(name string) (*peer, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var found []*peer
	var all, same []string
	for _, t := range e.tunnels {
		for _, p := range t.peers {
			full := p.name()
			if full == name || t.cfg.Name == name && len(t.peers) == 1 {
				return p, nil
			}
			if p.cfg.Name != "" && p.cfg.Name == name {
				found, same = append(found, p), append(same, full)
			}
			if t.cfg.Name == name {
				same = append(same, full)
			}
			all = append(all, full)
		}
	}
	switch {
	case len(found) == 1 && len(same) == 1:
		return found[0], nil
	case len(same) > 0:
		return nil, fmt.Errorf("%q is the name of %d peers: choose %s", name, len(same), anyOf(same))
	}
	return nil, fmt.Errorf("there is no peer %q: choose %s", name, anyOf(all))
}

func anyOf(names []string) string {
	more := ""
	if n := len(names) - candidates; n > 0 {
		names, more = names[:candidates], fmt.Sprintf(" or one of %d others", n)
	}
	return strings.Join(names, ", ") + more
}
