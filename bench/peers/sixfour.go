package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// paths are the ways in which sixfourd sends packets: the peer's name, and the lines to
// add to [[tunnel]].
var paths = []struct{ name, lines string }{
	{"sixfour", ``},
	{"sixfour-xdp", `io = "xdp"`},
	{"sixfour-kernel", `io = "kernel"`},
	{"sixfour-fou", "[[tunnel.path]]\nencap = \"fou\"\nport = 5555\nlocal_port = 5555"},
}

func sixfourPeers() []peer {
	var ps []peer
	for _, path := range paths {
		ps = append(ps, peer{path.name, ours, sixfourPrepare, func(ctx context.Context, l *lab) error {
			return sixfourUp(ctx, l, path.lines)
		}})
	}
	return ps
}

func sixfourPrepare(ctx context.Context, programs string) (string, error) {
	program := filepath.Join(programs, "sixfourd")
	if _, err := os.Stat(program); err != nil {
		flags := "-s -w" // as in make build, with the version
		if version, err := run(ctx, nil, "git", "describe", "--tags", "--always", "--dirty"); err == nil {
			flags += " -X sixfour/internal/version.release=" + strings.TrimSpace(version)
		}
		if _, err := run(ctx, nil, "go", "build", "-trimpath", "-ldflags", flags, "-o", program, "sixfour/cmd/sixfourd"); err != nil {
			return "", err
		}
	}
	version, err := run(ctx, nil, program, "-version")
	version, _, _ = strings.Cut(strings.TrimPrefix(version, "sixfourd"), "(") // the table names the version of Go already
	return strings.TrimSpace(version), err
}

// sixfourUp configures the daemons in the way that users do.
func sixfourUp(ctx context.Context, l *lab, lines string) error {
	inside := [2]string{"fc00::1", "fc00::2"} // for the IPv6 layer
	for i, name := range ends {
		path, err := l.write(name+".toml", fmt.Sprintf(`
[control]
socket = %q

[[tunnel]]
name    = %q
mode    = "4in6in4"
local   = "%v"
remote  = "%v"
local6  = "%s"
remote6 = "%s"
address = ["%v/%d"]
mtu     = %d
%s
`, l.path(name+".sock"), tunnel, outer[i], outer[1-i], inside[i], inside[1-i], inner[i], innerBits, tunnelMTU, lines))
		if err != nil {
			return err
		}
		if err := l.start(i, filepath.Join(l.programs, "sixfourd"), "-config", path, "-log-level", "warn"); err != nil {
			return err
		}
	}
	return nil
}
