package agent

import (
	"net/netip"
	"sync"
	"time"

	"sixfour/encap/header"
)

// Corrections are the nodes that have to be told that they use a wrong address. A node is told
// at most once in a second, and all together MaxCorrections times.
type Corrections struct {
	mu      sync.Mutex
	nodes   [MaxCorrections]correction
	pending int
}

// correction is a node that is to be told, or was told less than a second ago.
type correction struct {
	at   header.Mapping
	to   netip.Addr
	told time.Time // zero: not yet
}

// MaxCorrections is how many nodes are told in a second.
const MaxCorrections = 64

// CorrectionPause is how often to call Due.
const CorrectionPause = 250 * time.Millisecond

const correctEvery = time.Second

// NewCorrections returns Corrections without nodes.
func NewCorrections() *Corrections { return new(Corrections) }

// Note notes a node at a mapping, with the inner address that it used. Any goroutine may call
// it. It does nothing if there is no room.
func (c *Corrections) Note(at header.Mapping, to netip.Addr) {
	if !c.mu.TryLock() {
		return // the next packet will do
	}
	defer c.mu.Unlock()
	free := -1
	for i := range c.nodes {
		switch n := &c.nodes[i]; n.at {
		case at:
			return
		case header.Mapping{}:
			free = i
		}
	}
	if free >= 0 {
		c.nodes[free] = correction{at: at, to: to}
		c.pending++
	}
}

// Due calls tell for the nodes that are to be told now.
func (c *Corrections) Due(now time.Time, tell func(at header.Mapping, to netip.Addr)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending == 0 {
		return
	}
	for i := range c.nodes {
		switch n := &c.nodes[i]; {
		case n.at == (header.Mapping{}):
		case n.told.IsZero():
			n.told = now
			tell(n.at, n.to)
		case now.Sub(n.told) >= correctEvery:
			*n = correction{}
			c.pending--
		}
	}
}
