// Package privilege drops what the daemon does not need: capabilities, access to files
// and system calls, for all threads and irreversibly.
//
// The configuration with which the daemon starts determines what is needed. One that is
// loaded later may need more: Allows reports that before it is applied.
package privilege

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"kernel.org/pub/linux/libs/security/libcap/cap"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/netns"
	"sixfour/internal/nft"
)

// Sandbox describes what the process may still do.
type Sandbox struct {
	needs needs
	noRaw bool // the process has no CAP_NET_RAW
	state State
}

// State describes a Sandbox in words.
type State struct {
	User         string
	Capabilities []string // the remaining capabilities
	Landlock     string   // version of Landlock that restricts files, or "off"
	Seccomp      string   // "on" or "off"
	Missing      []string // why something is off that should be on
}

const (
	on  = "on"
	off = "off"
)

// Enter drops what the configuration, read from file, does not need. If the kernel
// cannot restrict something, because it is too old or built without support, that is no
// error: State reports it. Enter must be called once, before the first byte from the
// network is read, and after the control socket was made. as is the result of Become.
func Enter(cfg *config.Config, file string, as User) (*Sandbox, error) {
	s := &Sandbox{needs: needsOf(cfg, file), state: State{User: as.Name, Landlock: off, Seccomp: off}}
	if as.Root != "" {
		s.state.Missing = append(s.state.Missing, "user: the daemon still runs as root, with access to root's files and Unix sockets: "+as.Root)
	}
	// If one cannot be opened, its tunnels wait and report why.
	_ = netns.Hold(s.needs.processes...)
	capabilities, err := keepCapabilities(s.needs)
	if err != nil {
		return nil, fmt.Errorf("give up capabilities: %w", err)
	}
	s.state.Capabilities = capabilities
	s.noRaw = !slices.Contains(capabilities, cap.NET_RAW.String())
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

// State returns the state, which does not change.
func (s *Sandbox) State() State { return s.state }

// needs are the rights that a configuration needs beyond those that all need.
type needs struct {
	config    string   // the file
	socket    string   // the control socket
	setns     bool     // an interface is in another namespace
	names     []string // directories of namespaces
	processes []string // namespaces in /proc, which can later be reached only through open descriptors
	xdp       bool     // programs are loaded at any time
	kernel    bool     // programs that were loaded at the start are attached, and their tables changed
	filter    bool     // the packet filter: for a gateway, or to suppress ICMP errors of the kernel
	lowPort   bool     // metrics, or the UDP port of a path, below 1024
	files     []string // directories of files with secrets and certificates
	connects  []uint16 // ports of TCP to which the daemon connects
	store     bool     // the store of the broker or of the map server, or a counter, is a file, which is open already
	off       bool     // no sandbox
}

// modules is the directory of the loaded kernel modules. Tests replace it.
var modules = os.DirFS("/sys/module")

func needsOf(cfg *config.Config, file string) needs {
	n := needs{config: file, socket: cfg.Control.Socket, off: cfg.Security.NoSandbox}
	if _, port, err := net.SplitHostPort(cfg.Metrics.Listen); err == nil {
		number, err := strconv.Atoi(port)
		n.lowPort = err == nil && number < lowPorts
	}
	// A module matters even if the file has no tunnel of its protocol: a reload may add one.
	n.filter = cfg.Security.PacketFilter || hasGateway(cfg) || nft.KernelMayAnswer(modules)
	n.addBroker(&cfg.Broker)
	n.addMapServer(&cfg.LISP)
	for i := range cfg.Tunnels {
		t := &cfg.Tunnels[i]
		n.lowPort = n.lowPort || lowPath(t) != nil
		n.xdp = n.xdp || t.IO == config.IOXDP || t.IO == config.IOAuto
		n.kernel = n.kernel || t.IO == config.IOKernel || t.IO == config.IOAuto
		n.store = n.store || len(t.CounterFiles()) > 0
		for _, f := range t.Files() {
			n.files = append(n.files, directoriesOf(f)...)
		}
		n.connects = append(n.connects, t.ConnectsTo()...)
		switch {
		case t.Netns == "":
			continue
		case strings.HasPrefix(t.Netns, "/proc/"):
			n.processes = append(n.processes, t.Netns)
		default:
			n.names = append(n.names, filepath.Dir(netns.Path(t.Netns)))
		}
		n.setns = true
	}
	if len(n.connects) > 0 {
		for _, f := range authorities() {
			n.files = append(n.files, directoriesOf(f)...)
		}
	}
	n.names, n.files = unique(n.names), unique(n.files)
	n.processes, n.connects = unique(n.processes), unique(n.connects)
	return n
}

// lowPorts is the first port that needs no capability (ip_unprivileged_port_start).
const lowPorts = 1024

// lowPath returns the first path of a tunnel whose packets arrive at a port below
// lowPorts; nil: none.
func lowPath(t *config.Tunnel) *config.Path {
	for _, path := range t.AllPaths() {
		if port := path.Binds(); port > 0 && port < lowPorts {
			return path
		}
	}
	return nil
}

// hasGateway reports whether packets are translated, or there is a default route into a tunnel.
func hasGateway(cfg *config.Config) bool {
	return len(cfg.Gateway.Masquerade) > 0 || cfg.Gateway.DefaultRoute != "" ||
		slices.ContainsFunc(cfg.Tunnels, func(t config.Tunnel) bool { _, _, shares := t.Share(); return shares })
}

// authorities returns the files and directories with the certificates of the system's
// authorities, by which servers are checked. On most systems they are below /etc, some as
// symbolic links.
func authorities() []string {
	if file := os.Getenv("SSL_CERT_FILE"); file != "" { // as in crypto/x509
		return []string{file}
	}
	return []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/cacert.pem", "/etc/ssl/cert.pem"}
}

func unique[T cmp.Ordered](s []T) []T {
	slices.Sort(s)
	return slices.Compact(s)
}

// Allows returns an error if a new configuration needs rights that Enter has dropped. For
// tunnels the error is of type config.Problems. Changes to the control socket and to the
// sandbox itself take effect at the next start, and are not checked.
func (s *Sandbox) Allows(cfg *config.Config) error {
	var problems problem.List
	for i := range cfg.Tunnels {
		t := &cfg.Tunnels[i]
		if key, lacks := s.lacks(t); lacks != "" {
			problems = append(problems, t.Problem(key, "%s: the daemon has given up %s: restart it", key, lacks))
		}
		if path := lowPath(t); path != nil && !s.needs.lowPort {
			problems = append(problems, t.PathProblem(path, "local_port: the daemon has given up the right to use ports below %d: restart it", lowPorts))
		}
		if path := rawPath(t); path != nil && s.noRaw {
			problems = append(problems, t.PathProblem(path, "the packets need raw sockets, and the daemon was started without CAP_NET_RAW: restart it with CAP_NET_RAW"))
		}
		if right := s.lacksFor(t.Client.Files(), t.Client.ConnectsTo()); right != "" {
			problems = append(problems, t.Problem("server", "server: the daemon has given up the right to %s: restart it", right))
			continue
		}
		for _, path := range t.AllPaths() {
			if right := s.lacksFor(path.Files(), path.ConnectsTo()); right != "" {
				problems = append(problems, t.PathProblem(path, "encap: the daemon has given up the right to %s: restart it", right))
			}
		}
		if t.Update.URL != "" {
			if right := s.lacksFor([]string{t.Update.Key.File}, t.Update.ConnectsTo()); right != "" {
				problems = append(problems, t.Problem("update_url", "update_url: the daemon has given up the right to %s: restart it", right))
			}
		}
	}
	problems = append(problems, s.brokerProblems(&cfg.Broker)...)
	problems = append(problems, s.mapServerProblems(&cfg.LISP)...)
	if len(problems) > 0 {
		return problems.Sorted()
	}
	if hasGateway(cfg) && !s.needs.filter && !s.needs.off {
		return errors.New(`[gateway]: the daemon has given up the right to use the packet filter: restart it; packet_filter = "on" in [security] keeps that right`)
	}
	return nil
}

// lacks returns a right that a tunnel needs and that the process no longer has, with the
// key that requires it.
func (s *Sandbox) lacks(t *config.Tunnel) (key, right string) {
	dir := ""
	if t.Netns != "" {
		dir = filepath.Dir(netns.Path(t.Netns))
	}
	switch {
	case t.IO == config.IOXDP && !s.needs.xdp:
		return "io", "the right to load a filter program"
	case t.IO == config.IOKernel && !s.needs.kernel:
		return "io", "the right to load BPF programs"
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

// lacksFor returns the right that the process no longer has of those to read some files and to
// connect to a TCP port; 0: none.
func (s *Sandbox) lacksFor(files []string, port uint16) (right string) {
	if s.state.Landlock == off {
		return ""
	}
	if port != 0 && !slices.Contains(s.needs.connects, port) {
		return fmt.Sprintf("connect to TCP port %d", port)
	}
	for _, f := range files {
		for _, dir := range directoriesOf(f) {
			if !s.reads(dir) {
				return "open files in " + dir
			}
		}
	}
	return ""
}

// reads reports whether the process may read the files in a directory.
func (s *Sandbox) reads(dir string) bool {
	return slices.ContainsFunc(readable(s.needs), func(may string) bool { return dir == may || strings.HasPrefix(dir, may+"/") })
}

// program returns the path of this program for messages.
func program() string {
	path, err := os.Executable()
	if err != nil {
		return "sixfourd"
	}
	return path
}
