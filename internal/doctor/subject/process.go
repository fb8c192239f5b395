package subject

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sixfour/internal/config"
	"sixfour/internal/configfile"
)

// peerPID returns the process that listens at a Unix socket; 0: not known.
func peerPID(socket string) int {
	c, err := net.DialTimeout("unix", socket, StatusTimeout)
	if err != nil {
		return 0
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// FileError returns why the configuration file cannot be opened; nil: it can.
func (h *Host) FileError() error {
	f, err := os.OpenFile(h.File, os.O_RDONLY|unix.O_NONBLOCK, 0) // do not block on a named pipe
	if err == nil {
		f.Close()
	}
	return err
}

// needed are the capabilities that a daemon needs.
var needed = []struct {
	bit  uint
	name string
}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}}

// MissingCapabilities returns the needed capabilities that a process lacks
// (proc_pid_status(5)).
func (h *Host) MissingCapabilities(pid string) (names []string, err error) {
	b, err := os.ReadFile(filepath.Join(h.Options.Paths.Proc, pid, "status"))
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		value, ok := strings.CutPrefix(lines.Text(), "CapEff:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("the capabilities of process %s: %w", pid, err)
		}
		for _, c := range needed {
			if bits>>c.bit&1 == 0 {
				names = append(names, c.name)
			}
		}
		return names, nil
	}
	return nil, fmt.Errorf("the capabilities of process %s are not shown", pid)
}

// Privileged reports whether this program may check everything.
func (h *Host) Privileged() bool {
	missing, err := h.MissingCapabilities("self")
	return err != nil || len(missing) == 0
}

// elsewhere returns the network namespace of a process, as a path, if it differs from
// ours; "": it does not, or is not known. Some threads of a Go program, even the first
// one, may be in other namespaces: the namespace of most threads counts.
func elsewhere(proc string, pid int) string {
	ours, err := os.Readlink(filepath.Join(proc, "thread-self/ns/net"))
	if err != nil || pid == 0 {
		return ""
	}
	threads, _ := filepath.Glob(filepath.Join(proc, fmt.Sprint(pid), "task/*/ns/net"))
	in, most := make(map[string]int), ""
	var path string
	for _, t := range threads {
		ns, err := os.Readlink(t)
		if err != nil {
			continue
		}
		if in[ns]++; in[ns] > in[most] {
			most, path = ns, t
		}
	}
	if most == "" || most == ours {
		return ""
	}
	return path
}

// fileOf returns the configuration file of a daemon, from its directory in /proc, as a
// path that leads there from this program's mount namespace. If the daemon runs in
// another one, such as that of a container, the path leads through /proc/PID/root. With
// an error, it is the path in the daemon's mount namespace.
func (h *Host) fileOf(dir string) (string, error) {
	path := configOfProcess(dir)
	if path == "" {
		path = h.Options.Paths.Config
	}
	through := filepath.Join(dir, "root", path)
	theirs, err := os.Stat(through)
	if err != nil {
		return path, err
	}
	if ours, err := os.Stat(path); err == nil && os.SameFile(ours, theirs) {
		return path, nil
	}
	return through, nil
}

// configOfProcess returns the configuration file with which a daemon was started, from
// its directory in /proc; "": the default, or not known.
func configOfProcess(dir string) string {
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return ""
	}
	path := configOf(strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"))
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	cwd, err := os.Readlink(filepath.Join(dir, "cwd"))
	if err != nil {
		return ""
	}
	return filepath.Join(cwd, path)
}

// configOf returns the value of -config on a command line of sixfourd.
func configOf(args []string) string {
	for i, a := range args {
		flag, dashed := strings.CutPrefix(a, "-")
		name, value, inside := strings.Cut(strings.TrimPrefix(flag, "-"), "=")
		switch {
		case !dashed || name != "config":
		case inside:
			return value
		case i+1 < len(args):
			return args[i+1]
		}
	}
	return ""
}

// OtherDaemon returns another sixfourd in this namespace that has a tunnel with the same
// outer addresses; 0: none.
func (p *Peer) OtherDaemon() int {
	h := p.Tunnel.Host
	if h.PID == 0 || h.OtherNamespace != "" {
		return 0
	}
	dirs, _ := filepath.Glob(filepath.Join(h.Options.Paths.Proc, "[0-9]*"))
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || pid == h.PID || strings.TrimSuffix(filepath.Base(exe), " (deleted)") != "sixfourd" || elsewhere(h.Options.Paths.Proc, pid) != "" {
			continue
		}
		path, err := h.fileOf(dir)
		if err != nil {
			continue
		}
		cfg, _, err := configfile.LoadLenient(path)
		if err == nil && slices.ContainsFunc(cfg.Tunnels, p.sharesPackets) {
			return pid
		}
	}
	return 0
}

// sharesPackets reports whether another daemon's tunnel receives the packets of the peer.
func (p *Peer) sharesPackets(t config.Tunnel) bool {
	if len(t.Layers) == 0 || len(p.Tunnel.Config.Layers) == 0 {
		return false
	}
	ours := p.Outer()
	for _, path := range t.AllPaths() {
		theirs := t.Outermost(path)
		if path.Local == p.Configured() && path.Remote.Addr == p.Remote && theirs.Over() == ours.Over() && theirs.Protocol() == ours.Protocol() &&
			theirs.Properties().Identity == ours.Properties().Identity && theirs.Properties().Ports.Clash(ours.Properties().Ports) {
			return true
		}
	}
	return false
}
