package subject

import (
	"net/netip"
	"os"
	"testing"

	"sixfour/internal/config"
	"sixfour/internal/configfile"
)

func TestConfigOf(t *testing.T) {
	for _, test := range []struct {
		line []string
		want string
	}{
		{[]string{"sixfourd"}, ""},
		{[]string{"sixfourd", "-config", "/a"}, "/a"},
		{[]string{"sixfourd", "--config", "/a"}, "/a"},
		{[]string{"sixfourd", "-log-level", "debug", "--config=/a b"}, "/a b"},
		{[]string{"sixfourd", "-config"}, ""},
	} {
		if got := configOf(test.line); got != test.want {
			t.Errorf("%q: %q", test.line, got)
		}
	}
}

// Another daemon's GRE tunnel takes the packets of a peer if their keys are the same.
func TestSharedPackets(t *testing.T) {
	gre := func(text string) config.Tunnel {
		t.Helper()
		cfg, err := configfile.Parse("file", []byte("[[tunnel]]\nname = 'six0'\nmode = 'gre'\nlocal = '203.0.113.10'\nremote = '203.0.113.20'\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Tunnels[0]
	}
	for _, test := range []struct {
		ours, theirs string
		want         bool
	}{
		{"", "", true},
		{"key = 1\n", "key = 1\n", true},
		{"key = 1\n", "key = 2\n", false},
		{"key = 0\n", "", false},
	} {
		ours := gre(test.ours)
		p := &Peer{Tunnel: &Tunnel{Config: ours}, Config: &ours.Peers[0], Remote: netip.MustParseAddr("203.0.113.20")}
		if got := p.sharesPackets(gre(test.theirs)); got != test.want {
			t.Errorf("%q and %q: %v, want %v", test.ours, test.theirs, got, test.want)
		}
	}
}

// For a running process its own user counts.
func TestAccountOfAProcess(t *testing.T) {
	h := &Host{Options: Options{Paths: Paths{}.OrDefault()}, PID: os.Getpid()}
	a, ok := h.Account()
	if !ok || a.uid != os.Geteuid() || !a.overrides {
		t.Errorf("%+v, %v", a, ok)
	}
}
