package engine

import (
	"testing"

	"sixfour/internal/config"
	"sixfour/internal/pathmtu"
)

// Answers of many peers that have come are taken at once.
func TestAnswersAreTakenAtOnce(t *testing.T) {
	p := newProber()
	var peers []*peer
	for range cap(p.answers) {
		one := newPeer(&tunnel{prober: p}, new(config.Peer))
		p.paths[one] = &probing{Path: pathmtu.New(1500)}
		peers = append(peers, one)
		p.answers <- answer{p: one}
	}
	p.take(<-p.answers)
	for i, one := range peers {
		if p.paths[one].again.IsZero() {
			t.Fatalf("answer %d waits", i)
		}
	}
	if len(p.answers) > 0 {
		t.Errorf("%d are left", len(p.answers))
	}
}
