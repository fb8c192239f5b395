package report

import (
	"fmt"
	"strings"
)

// PeerName is by what operators refer to a peer.
type PeerName struct {
	Tunnel string
	Peer   string // "": it has no name
	Only   bool   // the tunnel is no hub
}

// String returns the name that no other peer has.
func (n PeerName) String() string {
	if n.Only {
		return n.Tunnel
	}
	return n.Tunnel + "/" + n.Peer
}

// Find returns the index of the peer of a name: "TUNNEL" for the only peer of a tunnel,
// "TUNNEL/PEER", or the name of a peer if only one tunnel has it.
func Find(name string, peers []PeerName) (int, error) {
	var of, same []int // the peers of the tunnel of that name; those and the peers of that name
	for i, p := range peers {
		if p.String() == name {
			return i, nil
		}
		if p.Tunnel == name {
			of = append(of, i)
		}
		if p.Tunnel == name || p.Peer == name && name != "" {
			same = append(same, i)
		}
	}
	switch {
	case len(of) == 1:
		return of[0], nil
	case len(same) == 1:
		return same[0], nil
	case len(same) > 0:
		list := make([]string, len(same))
		for i, at := range same {
			list[i] = peers[at].String()
		}
		return 0, fmt.Errorf("%q is the name of %d peers: choose %s", name, len(same), AnyOf(list))
	}
	list := make([]string, len(peers))
	for i, p := range peers {
		list[i] = p.String()
	}
	return 0, fmt.Errorf("there is no peer %q: choose %s", name, AnyOf(list))
}

// candidates is the most names that an error lists.
const candidates = 10

// AnyOf lists names from which one must be chosen, or the first of them if there are many.
func AnyOf(names []string) string {
	more := ""
	if n := len(names) - candidates; n > 0 {
		names, more = names[:candidates], fmt.Sprintf(" or one of %d others", n)
	}
	return strings.Join(names, ", ") + more
}
