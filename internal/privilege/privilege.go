// Package privilege gives up whatever the daemon does not need: capabilities,
// files and system calls, for all its threads and for good.
//
// What is needed follows from the configuration that the daemon starts with. One
// that is loaded later may need more: Allows says so before anything is tried.
package privilege

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sixfour/internal/config"
	"sixfour/internal/netcfg"
)

// Sandbox is what the process may still do.
type Sandbox struct {
	needs needs
	state State
}

// State is a Sandbox in words.
type State struct {
	User         string
	Capabilities []string // those that are left
	Landlock     string   // which version of it restricts files, or "off"
	Seccomp      string   // "on" or "off"
	Missing      []string // why something is off that should not be
}

const (
	on  = "on"
	off = "off"
)

// Enter gives up what the configuration, which was read from file, does not need.
// What the kernel cannot restrict, because it is too old or built without, is no
// error: State says it. It must be called once, before the first byte from the
// network is read, and after the control socket was made. As is what Become has said.
func Enter(cfg *config.Config, file string, as User) (*Sandbox, error) {
	s := &Sandbox{needs: needsOf(cfg, file), state: State{User: as.Name, Landlock: off, Seccomp: off}}
	if as.Root != "" {
		s.state.Missing = append(s.state.Missing, "user: it goes on as root, whose files and Unix sockets are open to it: "+as.Root)
	}
	// The tunnels of those that cannot be opened wait, and say why.
	_ = netcfg.Hold(s.needs.processes...)
	kept, err := keepCapabilities(s.needs)
	if err != nil {
		return nil, fmt.Errorf("give up capabilities: %w", err)
	}
	s.state.Capabilities = kept
	if cfg.Security.NoSandbox {
		return s, nil
	}
	if version, err := restrictFiles(s.needs); err != nil {
		s.state.Missing = append(s.state.Missing, "landlock: "+err.Error())
	} else {
		s.state.Landlock = version
	}
	if err := restrictCalls(s.needs); err != nil {
		s.state.Missing = append(s.state.Missing, "seccomp: "+err.Error())
	} else {
		s.state.Seccomp = on
	}
	return s, nil
}

// State says what is left. It does not change.
func (s *Sandbox) State() State { return s.state }

// needs are the rights that a configuration takes beyond those that all take.
type needs struct {
	config    string   // the file
	socket    string   // the control socket
	setns     bool     // some interface lives in another namespace
	names     []string // directories of namespaces
	processes []string // namespaces below /proc, which only their open descriptors reach later
	xdp       bool
	filter    bool // the packet filter: for a gateway, or to suppress ICMP errors of the kernel
	lowPort   bool // metrics at a port that is not for everybody
	off       bool // no sandbox
}

// modules is the directory of the loaded kernel modules. Tests replace it.
var modules = os.DirFS("/sys/module")

func needsOf(cfg *config.Config, file string) needs {
	n := needs{config: file, socket: cfg.Control.Socket, off: cfg.Security.NoSandbox}
	if _, port, err := net.SplitHostPort(cfg.Metrics.Listen); err == nil {
		number, err := strconv.Atoi(port)
		n.lowPort = err == nil && number < 1024
	}
	// A module matters even if the file has no tunnel of its protocol: a reload may add one.
	n.filter = cfg.Security.PacketFilter || hasGateway(cfg) || netcfg.KernelMayAnswer(modules)
	for _, t := range cfg.Tunnels {
		n.xdp = n.xdp || t.IO != config.IOSocket
		switch {
		case t.Netns == "":
			continue
		case strings.HasPrefix(t.Netns, "/proc/"):
			n.processes = append(n.processes, t.Netns)
		default:
			n.names = append(n.names, filepath.Dir(netcfg.NamespacePath(t.Netns)))
		}
		n.setns = true
	}
	n.names = unique(n.names)
	n.processes = unique(n.processes)
	return n
}

func hasGateway(cfg *config.Config) bool {
	return len(cfg.Gateway.Masquerade) > 0 || cfg.Gateway.DefaultRoute != ""
}

func unique(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

// Allows finds what a configuration, which is to replace the one that Enter was
// given, has tunnels that need what is gone. The error is of type
// config.Problems. What it says of the control socket and of the sandbox itself is for
// the next start.
func (s *Sandbox) Allows(cfg *config.Config) error {
	var problems config.Problems
	for i := range cfg.Tunnels {
		t := &cfg.Tunnels[i]
		if key, lacks := s.lacks(t); lacks != "" {
			problems = append(problems, t.Problem(key, "%s: the daemon has given up %s: restart it", key, lacks))
		}
	}
	if len(problems) > 0 {
		return problems.Sorted()
	}
	if hasGateway(cfg) && !s.needs.filter && !s.needs.off {
		return errors.New(`[gateway]: the daemon has given up the right to use the packet filter: restart it; packet_filter = "on" in [security] keeps that right`)
	}
	return nil
}

// lacks is what a tunnel needs and the process has no more, with the key that
// asks for it.
func (s *Sandbox) lacks(t *config.Tunnel) (key, right string) {
	dir := ""
	if t.Netns != "" {
		dir = filepath.Dir(netcfg.NamespacePath(t.Netns))
	}
	switch {
	case t.IO == config.IOXDP && !s.needs.xdp:
		return "io", "the right to load a filter program"
	case dir == "":
		return "", ""
	case !s.needs.setns:
		return "netns", "the right to enter another namespace"
	case s.needs.off:
		return "", ""
	case strings.HasPrefix(t.Netns, "/proc/"):
		if !slices.Contains(s.needs.processes, t.Netns) {
			return "netns", "the right to look at other processes"
		}
	case !slices.Contains(s.needs.names, dir):
		return "netns", "the right to open files in " + dir
	}
	return "", ""
}

// program is how messages call this file.
func program() string {
	path, err := os.Executable()
	if err != nil {
		return "sixfourd"
	}
	return path
}
