package doctor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sixfour/internal/control/client"
)

// peerPID returns the process that listens at a Unix socket; 0: not known.
func peerPID(socket string) int {
	c, err := net.DialTimeout("unix", socket, statusLimit)
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

func (h *host) checkDaemon(context.Context) finding {
	switch {
	case h.elsewhere != "":
		return fail(fmt.Sprintf("nsenter --net=%s sixfourctl doctor", h.elsewhere),
			"sixfourd (process %d) runs in another network namespace than this program, which looks at its own", h.pid)
	case h.status != nil && h.pid != 0:
		return pass("sixfourd (process %d) answers at %s", h.pid, h.socket)
	case h.status != nil:
		return pass("sixfourd answers at %s", h.socket)
	case !errors.Is(h.noone, client.ErrNoDaemon) && !h.privileged():
		return skip("%v", h.noone).but(asRoot)
	case !errors.Is(h.noone, client.ErrNoDaemon):
		return fail("systemctl restart sixfourd", "%s: %v", h.socket, h.noone)
	case h.cfg == nil && !h.privileged(): // the configuration may name another socket
		return skip("%v", h.noone).but(asRoot)
	case h.cfg == nil && h.o.Socket == "" && h.fileError() == nil:
		return skip("the file that says where its control socket is has errors, and nothing answers at %s", h.socket).but("sixfourctl doctor --socket PATH")
	case h.cfg != nil && h.o.Config != "": // a file is checked, perhaps before the first start
		return skip("sixfourd is not running: nothing answers at %s; only %s is looked at", h.socket, h.path).but("sixfourd -config " + h.path)
	case h.unit != nil:
		return fail("systemctl start sixfourd (if it ends again, journalctl -u sixfourd says why)", "sixfourd is not running: nothing answers at %s; only the configuration is looked at", h.socket)
	}
	return fail("sixfourd -config "+h.path, "sixfourd is not running: nothing answers at %s; only the configuration is looked at", h.socket)
}

func (h *host) checkConfig(context.Context) finding {
	if h.cfgErr != nil {
		if errors.Is(h.fileError(), fs.ErrPermission) {
			return skip("%s may not be read by this user", h.path).but(asRoot)
		}
		if h.status != nil && h.o.Config == "" && errors.Is(h.fileError(), fs.ErrNotExist) {
			return skip("%s is not there: what the daemon says of its tunnels is all that is known: name its file with --config", h.path)
		}
		return fail("sixfourd -check -config "+h.path, "%s", firstLine(h.cfgErr.Error()))
	}
	if len(h.doubts) > 0 {
		return fail("sixfourd -check -config "+h.path, "%s", h.doubts[0])
	}
	if h.status == nil {
		return pass("%s has %s", h.path, count(len(h.cfg.Tunnels), "tunnel"))
	}
	var here, there []string
	for _, t := range h.cfg.Tunnels {
		here = append(here, t.Name)
	}
	for _, t := range h.status.Tunnels {
		there = append(there, t.Name)
	}
	for _, name := range here {
		if !slices.Contains(there, name) {
			return fail("sixfourctl reload", "tunnel %s is in %s, but the daemon does not run it", name, h.path)
		}
	}
	for _, name := range there {
		if !slices.Contains(here, name) {
			return fail("sixfourctl reload", "the daemon runs tunnel %s, which is not in %s", name, h.path)
		}
	}
	return pass("%s has the daemon's %s", h.path, count(len(here), "tunnel"))
}

// fileError returns why the configuration file cannot be opened; nil: it can.
func (h *host) fileError() error {
	f, err := os.OpenFile(h.path, os.O_RDONLY|unix.O_NONBLOCK, 0) // do not block on a named pipe
	if err == nil {
		f.Close()
	}
	return err
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// leastKernel is the first long-term kernel that supports the route queries of netcfg
// (RTM_F_FIB_MATCH came with 4.13).
var leastKernel = [2]int{4, 14}

func (h *host) checkKernel(context.Context) finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return skip("uname: %v", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	major, minor, ok := kernelVersion(release)
	switch {
	case !ok:
		return skip("the release %q begins with no version", release)
	case major < leastKernel[0] || major == leastKernel[0] && minor < leastKernel[1]:
		return fail("install a newer kernel", "Linux %s is older than %d.%d", release, leastKernel[0], leastKernel[1])
	}
	return pass("Linux %s", release)
}

// kernelVersion parses the first two numbers of a release.
func kernelVersion(release string) (major, minor int, ok bool) {
	first, rest, ok := strings.Cut(release, ".")
	if !ok {
		return 0, 0, false
	}
	second := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	major, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(second)
	return major, minor, err == nil
}

func (h *host) checkTun(context.Context) finding {
	path := h.o.Paths.Tun
	make := fmt.Sprintf("modprobe tun; mkdir -p %s; mknod %s c 10 200 (in a container, from outside: --device %s)", filepath.Dir(path), path, path)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fail(make, "%s does not open: %v", path, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		if os.Geteuid() != 0 {
			return skip("%s may not be opened by this user", path).but(asRoot)
		}
		return fail("let the container use it: --device "+path, "%s may not be opened: %v", path, err)
	case err != nil:
		return fail(make, "%s does not open: %v", path, err)
	}
	defer unix.Close(fd)
	features, err := unix.IoctlGetUint32(fd, unix.TUNGETFEATURES)
	switch {
	case err != nil:
		return fail("rm "+path+"; "+make, "%s is no TUN device: %v", path, err)
	case features&unix.IFF_MULTI_QUEUE == 0:
		return fail("install a newer kernel", "%s has no more than one queue", path)
	}
	return h.checkTunFor(path)
}

// asRoot is the remedy for a missing permission of this program.
const asRoot = "sudo sixfourctl doctor"

// needed are the capabilities that a daemon needs.
var needed = []struct {
	bit  uint
	name string
}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}}

func (h *host) checkCapabilities(context.Context) finding {
	if h.pid != 0 {
		missing, err := h.missing(strconv.Itoa(h.pid))
		if err == nil && len(missing) > 0 {
			return fail("give its unit AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW, or run it as root",
				"sixfourd (process %d) lacks %s", h.pid, strings.Join(missing, " and "))
		}
	}
	missing, err := h.missing("self")
	switch {
	case err != nil:
		return skip("%v", err)
	case len(missing) > 0:
		return skip("this program lacks %s, so that much cannot be looked at", strings.Join(missing, " and ")).but(asRoot)
	case h.pid != 0:
		return pass("sixfourd and this program have CAP_NET_ADMIN and CAP_NET_RAW")
	}
	return pass("this program has CAP_NET_ADMIN and CAP_NET_RAW")
}

// missing returns the needed capabilities that a process lacks (proc_pid_status(5)).
func (h *host) missing(pid string) (names []string, err error) {
	b, err := os.ReadFile(filepath.Join(h.o.Paths.Proc, pid, "status"))
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

// privileged reports whether this program may check everything.
func (h *host) privileged() bool {
	missing, err := h.missing("self")
	return err != nil || len(missing) == 0
}

func (h *host) checkIPTables(context.Context) finding {
	for _, t := range []struct{ file, command string }{{"ip_tables_names", "iptables-legacy"}, {"ip6_tables_names", "ip6tables-legacy"}} {
		b, err := os.ReadFile(filepath.Join(h.o.Paths.Proc, "thread-self/net", t.file))
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EPERM) {
			return skip("the tables of %s may not be looked at by this user", t.command).but(asRoot)
		}
		if tables := strings.Fields(string(b)); len(tables) > 0 {
			return skip("%s has tables (%s), whose rules are not looked at", t.command, strings.Join(tables, ", ")).
				but(t.command + " -L -v -n")
		}
	}
	return pass("iptables-legacy has no tables: nftables shows all rules")
}
