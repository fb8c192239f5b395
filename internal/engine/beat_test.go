package engine

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sixfour/internal/config"
	"sixfour/internal/configfile"
	"sixfour/internal/netcfg"
)

// A reload of many tunnels sends heartbeats in each of its steps, so that the watchdog
// does not end the daemon.
func TestReloadBeats(t *testing.T) {
	const n = 20
	parsed := func(key string) *config.Config {
		var file strings.Builder
		for i := range n {
			fmt.Fprintf(&file, "[[tunnel]]\nname = 'beat%d'\nmode = '6in4'\nlocal = '127.0.0.1'\nremote = '127.0.1.%d'\nnetns = 'elsewhere'\n%s\n", i, i+1, key)
		}
		cfg, err := configfile.Parse("f", []byte(file.String()))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	e, err := New(parsed(""), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if e.router, err = netcfg.NewRouter(); err != nil {
		t.Fatal(err)
	}
	defer e.router.Close()
	e.ctx = t.Context()
	beats := 0
	e.OnBeat(func() { beats++ }, true)
	r := &reload{e: e, cfg: parsed("ttl = 9"), before: e.tunnels}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"prepare", r.prepare},
		{"evaluatePeers", func() error { e.evaluatePeers(e.tunnels); return nil }},
		{"leave", r.leave},
		{"takeAll", func() error { return e.takeAll(e.tunnels) }},
	} {
		beats = 0
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if beats < n {
			t.Errorf("%s: %d heartbeats for %d tunnels", step.name, beats, n)
		}
	}
	e.shutAll(e.tunnels)
}
